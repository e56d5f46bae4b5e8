# Trapeze. `make help` lists what there is.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.SILENT:
.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# A rustup installed a minute ago is not in PATH yet.
export PATH := $(PATH):$(HOME)/.cargo/bin
export PYTHONDONTWRITEBYTECODE := 1

export BOARD GUEST KERNEL INITRD CPUS PCPUS MEM GIC CPU QEMU_ARGS QUIET LOG ONLY LIMIT
export BUNDLE DTB FIRMWARE LOADER NET SERIAL BAUD POWER LAB
# APPEND= (nothing) is an answer too: the kernel's own log, not the default `quiet`.
ifneq ($(origin APPEND),undefined)
export APPEND
endif

PORT ?= 1234
TARGET := aarch64-unknown-none-softfloat
ELF := target/$(TARGET)/release/trapeze
GUEST_ELFS := target/guests/$(TARGET)/release
BUILT_IN := target/hello.itb
# What tests run.
IMAGES := target/trapeze.img target/hello.img target/initramfs.cpio target/suite.img target/audit.img target/oracle.img \
    target/bench.img target/count.so

.PHONY: help setup setup-run setup-card setup-lab build guests hello run image debug gdb suite suite-matrix audit test \
	test-long test-lab check bench doc clean distclean FORCE

help: ## List what make can do
	echo "Trapeze: an AArch64 type-1 hypervisor. On a fresh Debian 12 'make run' and 'make test' do everything."
	echo
	awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	echo
	sed -n 's/^#| \?//p' $(MAKEFILE_LIST)

#| Variables of make run and make debug:
#|   BOARD=virt|rpi4     QEMU's virt, or its Raspberry Pi 4: cortex-a72, GICv2, 4 CPUs and 2 GiB (virt)
#|   GUEST=linux|hello   Debian to a shell (default), or the tiny kernel that is built into the image
#|                       several VMs: GUEST=hello,linux,linux; CPUS (1) and MEM (128M) are then those of each
#|                       one that differs says so: GUEST=hello,linux:cpus=2:mem=256M:weight=200; there are cpus mem
#|                       name weight=1..10000 priority=0..31 cap=1..100 (%) on=0+1 (CPUs) crash=stop|reset|hold
#|   KERNEL=path         your own instead: arm64 Image, gzipped Image, ELF, or raw binary (at RAM base + 0x80000)
#|   INITRD=path         its initial ramdisk
#|   APPEND="..."        its command line
#|   CPUS=n              vCPUs: 1 to 8 (4)
#|   PCPUS=n             physical CPUs of the board: 1 to 16 (one for each vCPU; with several VMs at most 4)
#|   MEM=size            its RAM: 512M, 1G or bytes, a multiple of 2 MiB (512M)
#|   GIC=2|3             interrupt controller of board and VM (3)
#|   CPU=model           QEMU's name for it: cortex-a53, cortex-a72, neoverse-n1, max, ... (cortex-a72)
#|   QUIET=1             only the guest on the console; LOG=off|error|warn|info|debug|trace says how much else
#|   QEMU_ARGS="..."     more options for QEMU
#|   PORT=n              where make debug waits and make gdb attaches (1234)
#| make image takes these but QEMU_ARGS and PORT, BUNDLE=path for a bundle of your own, and
#|   FIRMWARE=folder     the board's firmware: Raspberry Pi OS's boot partition (Debian's raspi-firmware)
#|   DTB=path            the board's device tree (that of Debian's kernel)
#|   LOADER=1            wait for a bundle from the serial line
#|   NET=1               lay the files out for TFTP too, in target/rpi4/net; SERIAL=n for the board with that number
#| make suite takes BOARD, CPU, GIC, CPUS, MEM and, instead of its own test kernel, KERNEL, INITRD and APPEND; and
#|   ONLY=name           only tests whose names begin so: gic, gic.sgi_to_self
#|   LIMIT=n             seconds that a machine may take (180); with SERIAL from one result to the next (60)
#|   SERIAL=/dev/ttyUSB0 a real board at the end of a serial line (BAUD=115200), Trapeze on it with trapeze.loader
#|   POWER="command"     switches that board off and on; without it you are asked to
#| make test-lab takes LAB=path, labgrid's environment: one of tests/labgrid (docs/rpi4.md), or your own

setup: ## Install what is missing (make run and make test do it themselves)
	tools/setup

setup-run:
	tools/setup --run

setup-card:
	tools/setup --card

setup-lab:
	tools/setup --lab

build: setup-run target/trapeze.img ## Build the hypervisor image, target/trapeze.img

guests: target/hello.img target/initramfs.cpio ## Build the guests

run: setup-run target/trapeze.img guests ## Run a guest under Trapeze
	tools/run

image: setup-card target/trapeze.img guests ## Lay out a card for BOARD=rpi4 that runs it: target/rpi4 (docs/rpi4.md)
	tools/image

debug: setup-run target/trapeze.img guests ## The same, paused until make gdb attaches and continues
	echo "Waiting for 'make gdb'; Ctrl-A x leaves." >&2
	PORT=$(PORT) tools/run

gdb: ## Attach gdb to make debug, with symbols and the commands of docs/gdb.md
	test -e $(ELF) || { echo "gdb: nothing built yet; start 'make debug' first" >&2; exit 1; }
	gdb-multiarch -q -x tools/gdb/trapeze.py -ex "trapeze-attach $(PORT)"

suite: setup-run target/trapeze.img target/suite.img ## Run the test kernel bare and in a VM, or a KERNEL that prints KTAP
	tools/suite

suite-matrix: setup-run target/trapeze.img target/suite.img ## The same on four CPU models, both GICs, 1 and 4 CPUs
	tools/suite --matrix

audit: setup-run target/trapeze.img target/audit.img ## Every system instruction, bare and in a VM; writes target/audit/report.html
	tools/audit

test: setup $(IMAGES) ## Run the tests; ends in a summary
	tools/test

test-long: setup $(IMAGES) ## The same and the long forms: 100 million random words, 100,000 loads and stores, every machine
	tools/test --long

test-lab: setup-lab target/trapeze.img target/suite.img ## The suite on the boards of a labgrid lab; QEMU's if no LAB is given
	tools/lab

check: setup-run $(BUILT_IN) ## Format, lints and host tests, in under a minute
	tools/test --check

bench: setup-run target/trapeze.img guests target/bench.img target/count.so ## Measure what it costs; fills the README's table
	tools/bench

doc: setup-run ## Write the API documentation to target/doc
	cargo doc --workspace --no-deps --lib --document-private-items

clean: ## Remove what was built; what was downloaded stays
	test ! -d target || find target -mindepth 1 -maxdepth 1 ! -name debian ! -name venv -exec rm -rf {} +

distclean: ## Remove the downloads too
	rm -rf target

# --- files; cargo knows what is up to date, and leaves the time of what is ------------------------------------------

target/trapeze.img: $(ELF) tools/flatten
	tools/flatten $< $@

$(ELF): $(BUILT_IN) FORCE
	cargo build --locked --release --target $(TARGET) --bin trapeze

# A guest of ours, guests/<name>.
target/hello.img target/suite.img target/audit.img target/oracle.img target/bench.img: target/%.img: $(GUEST_ELFS)/% tools/flatten
	tools/flatten $< $@

$(GUEST_ELFS)/%: FORCE
	cargo build --locked --release --target $(TARGET) --manifest-path guests/$*/Cargo.toml --target-dir target/guests

target/count.so: tools/plugin/count.c
	cc -std=gnu11 -O2 -Wall -Wextra -Werror -fvisibility=hidden -fPIC -shared -o $@ $<

# What runs when there is no initrd: one vCPU, so that it fits every board of its GIC version.
$(BUILT_IN): target/hello.img tools/bundle
	CPUS=1 MEM=16M CPU=max PACK=1 PMU=0 KERNEL=$< INITRD= APPEND= tools/bundle $@ NAME=hello GIC=3 -- NAME=hello-gicv2 GIC=2

target/initramfs.cpio: target/debian/busybox tools/initramfs $(shell find guests/linux -type f)
	tools/initramfs $< $@
