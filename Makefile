PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# Nothing is downloaded: the demo runs on the world inside the package.
demo: export HF_HUB_OFFLINE = 1
# Tests use models built in code or files at hand; asking a hub would be a mistake.
test: export HF_HUB_OFFLINE = 1

.PHONY: demo frontend torture mutate test test-long test-engines test-newest test-oldest test-oldest-extras lint types wheel slow real real-attach docs lab-study real-shortcut
.DEFAULT_GOAL := test

# Two processes of one thread each: on two cores faster than one process of two. EXAMPLES=all takes a hundred
# examples for each property, as continuous integration does, and not 25.
EXAMPLES = quick
test: export OMP_NUM_THREADS = 1
test: $(VENV)/.installed
	$(BIN)/pytest -q -n 2 --dist loadfile --hypothesis-profile=$(EXAMPLES)

# Whole commands, browsers and notebooks: the slower part, which continuous integration runs too.
test-long: export HF_HUB_OFFLINE = 1
test-long: export OMP_NUM_THREADS = 1
test-long: $(VENV)/.installed
	$(BIN)/pytest -q -n 2 --dist loadfile -m long

demo: $(VENV)/.installed
	$(BIN)/sarm demo

# Tests that take minutes each, such as making the embedded world again.
slow: $(VENV)/.installed
	$(BIN)/pytest -q -m minutes

# The client code of OpenRLHF, ms-swift and verl, in environments of their own under the user's cache
# (XDG_CACHE_HOME moves it). Pip takes torch from the index it is told of: one of CPU builds is enough.
test-engines: export HF_HUB_OFFLINE = 1
test-engines: export OMP_NUM_THREADS = 1
test-engines: $(VENV)/.installed
	$(BIN)/python -m tests.engines.real.environments
	$(BIN)/pytest -v -m engines tests/engines/real

# The tests with the ends of the ranges in pyproject.toml, in environments of their own under the user's
# cache, as above. All of them, or TESTS="tests/data tests/latents".
test-newest test-oldest test-oldest-extras: export HF_HUB_OFFLINE = 1
test-newest test-oldest test-oldest-extras: export OMP_NUM_THREADS = 1
ends = @$(PYTHON) -c '$(NEEDED)' && $(PYTHON) -m tests.version_ends

test-newest:
	$(ends) newest $(TESTS)

test-oldest:
	$(ends) oldest $(TESTS)

test-oldest-extras:
	$(ends) oldest-extras $(TESTS)

# Sixty kills of a training run and some, each resumed and compared with a run nothing stopped.
torture: export OMP_NUM_THREADS = 1
torture: $(VENV)/.installed
	$(BIN)/python benchmarks/torture.py --kills 66 --out benchmarks/results/torture.json

wheel:
	.ci/wheel

# Changes the source in places drawn by chance and looks whether a test fails.
mutate: $(VENV)/.installed
	$(BIN)/python scripts/mutate.py

# The manual, into site/. Warnings are errors: a link that leads nowhere, a page that nobody finds. Then its search
# is tried in Chromium, where there is one.
docs: export NO_MKDOCS_2_WARNING = 1
docs: $(VENV)/.installed
	$(BIN)/mkdocs build --strict --quiet
	$(BIN)/python scripts/search_manual.py

# The pages of the explorer, from TypeScript to the files that the package holds. Needs node 20 or newer.
frontend:
	cd frontend && npm ci --no-audit --no-fund && npm run build

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

real: $(VENV)/.installed
	$(BIN)/python scripts/real_text.py

# A reward model that TRL trains, a dictionary attached to it, and a SARM of the same pairs.
real-attach: $(VENV)/.installed
	$(BIN)/python scripts/real_attach.py
	$(BIN)/python scripts/real_attach_tables.py

# The study on real text, stage by stage; what is there is kept. DATA is the folder of benchmark rows.
DATA = ../shared/data
real-shortcut: export HF_HUB_OFFLINE = 1
real-shortcut: $(VENV)/.installed
	$(BIN)/python scripts/real_shortcut.py --data $(DATA)

# Ten worlds, one after the other on each core, then their study; what is there is kept. A seed that fails the
# builder's gate stops it with a message: no world is left out without a word.
WORLDS = 0 1 2 3 4 5 6 7 8 9
lab-study: export OMP_NUM_THREADS = 1
lab-study: $(VENV)/.installed
	for seed in $(WORLDS); do test -d work/worlds/$$seed || echo $$seed; done | xargs -r -P 2 -I SEED \
	  $(BIN)/sarm lab build --seed SEED -o work/worlds/SEED
	$(BIN)/sarm study benchmarks/lab_study.yaml -o work/lab_study --jobs 2
	$(BIN)/python benchmarks/lab_discovery.py --worlds $(addprefix work/worlds/,$(WORLDS)) \
	  --out work/lab_discovery.json

NEEDED = import sys; sys.version_info < (3, 11) and sys.exit("needs Python 3.11 or newer, and $(PYTHON) is " \
	+ "%d.%d: make PYTHON=python3.12 names another" % sys.version_info[:2])

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c '$(NEEDED)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"
	@# torch goes first and alone, so that no other package's range picks another build of it.
	$(PIP) install -c constraints.txt torch==2.13.0
	$(PIP) install -c constraints.txt -e ".[all]" --group dev
	touch $@
