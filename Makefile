# make demo: the whole way on real microscopy.  make test: everything that is checked, but the slow tests.
# Both need nothing but Python >= 3.11, git and make, and set up their own environment in .venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# One thread a process: two pytest workers share the processors. tests/conftest.py says which tests go together to one of them.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -q
TRAINING := tests/frameworks tests/training tests/networks/test_architectures.py tests/networks/test_third_party.py \
	tests/cli/test_export_portable.py tests/cli/test_grouping_commands.py
# What is beside them and learns nothing.
NOT_TRAINING := --ignore tests/frameworks/test_blind_spots.py --ignore tests/frameworks/test_instance_maps.py \
	-k "not its_grid and not nothing_to_make_portable and not ctrl_c and not full_disk and not without_memory"
OTHER := $(shell grep -qs avx512 /proc/cpuinfo && echo avx2 || echo default)
OTHER_ONEDNN := $(if $(filter avx2,$(OTHER)),AVX2,SSE41)

.PHONY: setup demo test lint unit capability slow fuzz sweep stardist consumers install_consumers packaged_models constraints web clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, this is " + sys.version.split()[0] + "; say make PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	@echo "Setting up $(VENV) (some minutes, once)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt --group dev -e ".[train,openvino]"
	$(BIN)/python -m im2im_zoo.core.resources
	touch $@

demo: setup
	$(BIN)/im2im-zoo demo --overwrite

test: lint unit

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup
	$(TEST) -m "not slow"

# The tests that train, once more with the instructions of another processor: its rounding differs, and what they claim may not
# hang on it.
capability: setup
	ATEN_CPU_CAPABILITY=$(OTHER) ONEDNN_MAX_CPU_ISA=$(OTHER_ONEDNN) $(TEST) -m "not slow" $(NOT_TRAINING) $(TRAINING)

# In their order, as the demo is long and among the first.
slow: setup $(VENV)/.stardist
	$(TEST) --no-loadscope-reorder -m slow

# Feed damaged packages, images and recipes to the commands; FUZZ="--runs 20000" for hours.
fuzz: setup
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz $(FUZZ)

# Kill every command at each of its changes of the disk, hours; SWEEP="--every 7 --loss kill" for a part.
sweep: setup
	OMP_NUM_THREADS=1 $(BIN)/python tests/sweep $(SWEEP)

stardist: $(VENV)/.stardist

# Groups the maps of its packages in the slow tests. Cellpose, whose torchvision on PyPI does not go with every torch, is left out.
$(VENV)/.stardist: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt stardist
	touch $@

# Run packages of every framework in other programs; write the results into docs/consumers.md and the versions into tried.yaml.
consumers: install_consumers
	$(BIN)/python tests/consumers/table.py

# What tests/consumers/ runs packages in; as root it installs Debian's libtorch.
install_consumers: setup
	bash tests/consumers/install.sh .consumers $(BIN)/python

# Train, export and validate again what packaged_models/ holds.
packaged_models: setup
	$(BIN)/python packaged_models/rebuild.py

# Pin what is installed now.
constraints: setup
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

# Test and build the page that runs packages in the browser into im2im_zoo/web/; it needs Node.js >= 20.19 and npm.
web:
	cd web && npm ci --no-fund --no-audit && npm run check && npm test && npm run build

clean:
	rm -rf $(VENV) web/node_modules im2im_zoo/web .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis im2im-zoo-demo
