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
# The machine of the kernel tests, and compilers for the kernels that they build for.
KERNEL_PACKAGES := busybox-static gcc gcc-aarch64-linux-gnu kmod lib32gcc-12-dev \
                   libc6-dev-i386 libelf1 make qemu-system-x86 sparse xz-utils
DEBUG_KERNEL_PACKAGES := bc bison flex libelf-dev libssl-dev
CHECK_PACKAGES := clang-format shellcheck
MOUNTPOINT ?= /mnt/mbuff
C_SOURCES := $(wildcard mbufffs/channel/*.[ch] mbufffs/backends/*.[ch] mbufffs/bench/*.c)

# The kernel that `make kmod` builds for, by its headers; what is built lies in build/kmod.
KDIR ?= /lib/modules/$(shell uname -r)/build
DKMS_VERSION := $(shell sed -n 's/^PACKAGE_VERSION=//p' kmod/dkms.conf)

.PHONY: help run stop test check bench soak clean kmod kmod-examples kmod-install kernel-test kernel-check kernel-debug-test

help: ## show the verbs
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 19

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
	$(call debian,$(TEST_PACKAGES) $(KERNEL_PACKAGES))
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
	@shellcheck $$(git ls-files '*.sh') .ci/run tests/kernel/bin/virtiofsd
	@$(BIN)/python -m pytest -q tests/unit tests/conformance

bench: $(VENV)/installed ## measure beside every alternative, some ten minutes
	@$(BIN)/pip install -q --disable-pip-version-check -e '.[bench]'
	@$(BIN)/python -m bench $(BENCH)

soak: $(VENV)/installed ## the long fault tests, a quarter of an hour
	@$(BIN)/python -m pytest -q --soak tests/mount

kernel-test: $(VENV)/installed ## build the kernel module for several kernels, and test it on two
	$(call debian,$(KERNEL_PACKAGES))
	@$(BIN)/python -m pytest -q tests/kernel

kernel-check: $(VENV)/installed ## sparse, clang's analyzer and checkpatch on the kernel modules
	$(call debian,$(KERNEL_PACKAGES) clang perl)
	@$(BIN)/python -m tests.kernel static

kernel-debug-test: $(VENV)/installed ## ... on a kernel that looks for faults, built here first
	$(call debian,$(KERNEL_PACKAGES) $(DEBUG_KERNEL_PACKAGES))
	@$(BIN)/python -m tests.kernel --memory 2G --seconds 3600 pytest debug

kmod: ## build the kernel module for the running kernel, or for the headers in KDIR=...
	@test -e $(KDIR)/Makefile || { echo "no kernel headers in $(KDIR): install" \
	  "linux-headers-$$(uname -r), or name others with KDIR=..." >&2; exit 1; }
	@mkdir -p build/kmod && cp -ru kmod/. build/kmod/
	@$(MAKE) --no-print-directory -C $(KDIR) M=$(CURDIR)/build/kmod modules

kmod-examples: kmod ## build the modules and programs of examples/kernel in build/examples/kernel
	@mkdir -p build/examples && cp -ru examples/kernel build/examples/
	@set -e; for directory in build/examples/kernel/*/; do \
	  $(MAKE) --no-print-directory -C $(KDIR) M=$(CURDIR)/$$directory modules \
	    KBUILD_EXTRA_SYMBOLS=$(CURDIR)/build/kmod/Module.symvers; \
	  for source in $$directory/*_user.c $$directory/watch.c; do \
	    test ! -e $$source || \
	      $(CC) -O2 -Wall -Ikmod/include -Ikmod/uapi $$source -o $${source%.c}; \
	  done; \
	done

# DESTDIR=... puts the files under another root, and leaves groups and devices of this one alone.
kmod-install: ## install the module (by DKMS if it is here), mbuff.h, and who may open /dev/mbuff
	@test -n "$(DESTDIR)" || test "$$(id -u)" = 0 || \
	  { echo "installing the module needs root" >&2; exit 1; }
	@if [ -z "$(DESTDIR)" ] && command -v dkms >/dev/null; then \
	  set -e; \
	  dkms remove -m mbuff -v $(DKMS_VERSION) --all >/dev/null 2>&1 || true; \
	  rm -rf /usr/src/mbuff-$(DKMS_VERSION); \
	  cp -r kmod /usr/src/mbuff-$(DKMS_VERSION); \
	  dkms install -m mbuff -v $(DKMS_VERSION); \
	else \
	  $(MAKE) --no-print-directory kmod KDIR=$(KDIR) && \
	  $(MAKE) --no-print-directory -C $(KDIR) M=$(CURDIR)/build/kmod \
	    INSTALL_MOD_PATH=$(DESTDIR) CONFIG_MODULE_SIG_ALL= modules_install && \
	  { [ -n "$(DESTDIR)" ] || \
	    depmod $$($(MAKE) --no-print-directory -s -C $(KDIR) kernelrelease); }; \
	fi
	@install -D -m 644 -t $(DESTDIR)/usr/include kmod/include/mbuff.h kmod/include/mbuff_files.h \
	  kmod/include/rtai_shm.h
	@install -D -m 644 -t $(DESTDIR)/usr/include/linux kmod/uapi/linux/mbuff.h
	@install -D -m 644 packaging/udev/60-mbuff.rules $(DESTDIR)/etc/udev/rules.d/60-mbuff.rules
	@if [ -z "$(DESTDIR)" ]; then \
	  groupadd -r -f mbuff; \
	  if [ -S /run/udev/control ]; then udevadm control --reload; fi; \
	fi

clean: ## remove what was built and installed in this directory
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
	find mbufffs -name '*.so' -delete
