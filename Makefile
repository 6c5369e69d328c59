# `make demo` and `make test` set up everything they need in .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
NATIVE := $(shell find native -name '*.rs' -not -path '*/target/*') native/Cargo.toml native/Cargo.lock

.PHONY: install demo test test-lanes test-avx512 lint format protos fuzz bench clean

install: $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/concordat demo

# Some tests inject faults with strace, others look at the console with Chromium; root can have both
# installed here, others see these tests skipped.
test: $(VENV)/.installed
	command -v strace >/dev/null || test "$$(id -u)" != 0 || apt-get install -qq strace || true
	command -v chromium >/dev/null || test "$$(id -u)" != 0 || \
		{ echo "Installing Chromium, to test the console"; apt-get install -qq chromium || true; }
	cargo test --release --manifest-path native/Cargo.toml
	cargo test --release --manifest-path native/Cargo.toml --features emulated-lanes
	$(BIN)/python -m pytest

# The kernels in lanes on any processor (docs/adr/0091), beside the module that is in use.
LANES := native/target/lanes
test-lanes: $(VENV)/.installed
	cargo build --release --manifest-path native/Cargo.toml --features emulated-lanes --target-dir $(LANES)
	rm -rf $(LANES)/federated && cp -r federated $(LANES)
	rm -f $(LANES)/release/lib_native.d $(LANES)/release/lib_native.rlib
	cp $(LANES)/release/lib_native.* $(LANES)/federated/_native.abi3.so
	PYTHONPATH=$(LANES) $(BIN)/pytest tests/native

# Their machine code on a processor that Bochs emulates (docs/adr/0093): minutes.
test-avx512: $(VENV)/.installed
	-$(BIN)/python -m pip install --quiet 'bochscpu-python>=0.4'
	$(BIN)/python native/emulator.py

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	cargo fmt --manifest-path native/Cargo.toml --check
	cargo clippy --release --manifest-path native/Cargo.toml --all-targets -- -D warnings

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	cargo fmt --manifest-path native/Cargo.toml

# Every parser of peer or file bytes under atheris, each for so many seconds.
FUZZ_SECONDS ?= 20
fuzz: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet 'atheris>=3'
	$(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS)

# Our figures beside the peers', which get an environment of their own; QUICK=1 takes minutes.
bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(SUBJECTS)

# The generated stubs are committed; tests/protos checks that they are current.
protos: $(VENV)/.installed
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. \
		$(wildcard protos/concordat/v1/*.proto)

$(VENV)/.installed: pyproject.toml $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) native/target benchmarks/.peers
