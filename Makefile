# SPDX-License-Identifier: MIT
# The verbs of the project; each installs what it needs first, and works again when it is repeated.

# The distribution's Python, which every user of the machine can run.
PYTHON := $(firstword $(wildcard /usr/bin/python3) python3)
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := fuse3 libfuse3-dev pkg-config gcc python3-dev python3-venv
TEST_PACKAGES := attr clang fio git libclang-rt-14-dev make procps rsync stress-ng strace tar \
                 util-linux \
                 libpython$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')-testsuite
CHECK_PACKAGES := clang-format shellcheck
MOUNTPOINT ?= /mnt/mbuff
C_SOURCES := $(wildcard mbufffs/channel/*.[ch] mbufffs/backends/*.c)

.PHONY: help run stop test check bench soak clean

help: ## show the verbs
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

# Installs the Debian packages of the list in $(1) that are missing, and says which.
define debian
	@missing=$$(LC_ALL=C dpkg-query -W -f '$${db:Status-Status} $${Package}\n' $(1) 2>&1 | \
	  sed -n -e 's/^not-installed //p' -e 's/^config-files //p' \
	         -e 's/.*no packages found matching //p'); \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" != 0 ]; then \
	    echo "missing Debian packages; as root: apt-get install" $$missing >&2; exit 1; \
	  fi; \
	  echo "installing Debian packages:" $$missing; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi
endef

$(VENV)/installed: pyproject.toml setup.py $(C_SOURCES)
	$(call debian,$(PACKAGES))
	@echo "installing mbufffs and what it needs from PyPI into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check -e '.[test,check]'
	@touch $@

run: $(VENV)/installed ## install, mount at /mnt/mbuff, and show a short tour
	@$(BIN)/mbufffs info -m $(MOUNTPOINT) >/dev/null 2>&1 || $(BIN)/mbufffs mount $(MOUNTPOINT)
	@MBUFF_DIR=$(MOUNTPOINT) PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/shell/tour.sh

stop: $(VENV)/installed ## unmount; the areas stay until `mbufffs umount --discard`
	@$(BIN)/mbufffs umount $(MOUNTPOINT)

test: $(VENV)/installed ## install what the tests need, and run them all
	$(call debian,$(TEST_PACKAGES))
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest -q

check: $(VENV)/installed ## lint, types, and the tests that need no mount
	$(call debian,$(CHECK_PACKAGES))
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@clang-format --dry-run -Werror $$(git ls-files '*.c' '*.h')
	@for source in $(filter %.c,$(C_SOURCES)); do \
	  gcc -std=gnu11 -O2 -Wall -Wextra -Wno-unused-parameter -Werror -fsyntax-only \
	    $$($(BIN)/python -c 'import sysconfig; print("-I" + sysconfig.get_path("include"))') \
	    $$source || exit 1; done
	@shellcheck $$(git ls-files '*.sh') .ci/run
	@$(BIN)/python -m pytest -q tests/unit tests/conformance

bench: $(VENV)/installed ## measure beside tmpfs
	@$(BIN)/python -m bench

soak: $(VENV)/installed ## the long fault tests, a quarter of an hour
	@$(BIN)/python -m pytest -q --soak tests/mount

clean: ## remove what was built and installed in this directory
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
	find mbufffs -name '*.so' -delete
