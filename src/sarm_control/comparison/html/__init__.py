"""One JSON file per comparison, and one offline HTML page made from it."""
