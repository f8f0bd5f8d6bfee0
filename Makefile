PYTHON ?= python3.11
VENV   := .venv
PY     := $(VENV)/bin/python

# Two environments, made by themselves and made again when their lists change.
# .triton/ has its own because the server's Python stub needs numpy 1.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

.triton/.installed: deploy/triton-requirements.txt
	$(PYTHON) -m venv .triton
	.triton/bin/python -m pip install --quiet -r deploy/triton-requirements.txt
	@touch $@
