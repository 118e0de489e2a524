"""Where the bytes of data files lie: on disk, in a pipe, in a folder of many files, on the hub."""
