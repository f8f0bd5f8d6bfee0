# Good images of a product in; a Triton ensemble that judges every new image of it out.
#
#   make demo                    everything on real solar cells, from training to a benchmark
#   make export CATEGORY=pill    train if needed, verify, publish
#
# Options: CATEGORY PRESET DATA PLATFORM PRECISION EPOCHS STEPS FOREGROUND BIT_DEPTH ALIGN KNOWN_DEFECTS REGIONS FORCE
#          WEIGHTS_DIR URL IMAGES WHAT RELEASE THRESHOLD RATE ESCAPES REASON OUTPUT BUNDLE PROMOTE KEEP YES PUBLIC_KEY PROFILE

PYTHON   ?= python3.11
CATEGORY ?= mono
PLATFORM ?= python
PRECISION ?= fp32
URL      ?= localhost:8001
DEVICE   ?= cuda
PROFILE  ?= cpu

VENV := .venv
PY   := $(VENV)/bin/python
RUN  := runs/$(CATEGORY)

# Recipes read what was asked for from their environment: a value with spaces or quotes reaches the command as it is,
# and the command says what is wrong with it.
export CATEGORY DATA PRESET STEPS EPOCHS FOREGROUND BIT_DEPTH ALIGN KNOWN_DEFECTS REGIONS WEIGHTS_DIR PLATFORM PRECISION \
       URL IMAGES WHAT RUN DEVICE RELEASE THRESHOLD RATE ESCAPES REASON OUTPUT BUNDLE KEEP PUBLIC_KEY PROFILE

# Only what was asked for is passed on; the rest is the run's, which remembers its images too, or the preset's.
NAMED        := --category "$$CATEGORY"
DATA_OPTIONS := $(NAMED) $(if $(DATA),--data "$$DATA")
WEIGHTS      := $(if $(WEIGHTS_DIR),--weights-dir "$$WEIGHTS_DIR")
FIT_OPTIONS  := $(if $(PRESET),--preset "$$PRESET") $(if $(STEPS),--steps "$$STEPS") \
                $(if $(EPOCHS),--epochs "$$EPOCHS") $(WEIGHTS) \
                $(if $(FOREGROUND),--foreground "$$FOREGROUND") \
                $(if $(BIT_DEPTH),--bit-depth "$$BIT_DEPTH") \
                $(if $(ALIGN),--align "$$ALIGN") \
                $(if $(KNOWN_DEFECTS),--known-defects "$$KNOWN_DEFECTS") \
                $(if $(REGIONS),--regions "$$REGIONS")
PRECISELY    := $(NAMED) --precision "$$PRECISION"
# In a recipe: sets $$images to IMAGES, or to the folder of the category's test images, or fails.
FIND_IMAGES   = images=$$IMAGES; \
    [ -n "$$images" ] || images=$$($(PY) -m train data $(DATA_OPTIONS) --print-test-dir) || exit 1
# Behind `client predict`, which exits with 1 where it found anomalies: that is a result here, and 2 is an error.
OR_ANOMALIES := || [ $$? -eq 1 ]
BENCH         = -m client bench $(NAMED) --images "$$images" --output "$$RUN/bench"

# A finished run is replaced only where this is asked for.
FORCED := $(if $(FORCE),--force)

.DEFAULT_GOAL := help
.PHONY: help setup demo data train evaluate export verify engine engine-check serve up down doctor predict report releases promote rollback retune bundle import prune check audit bench bench-all gpu-check test fuzz lint clean

##@ Start here
help: ## This list
	@sed -n 's/^##@ /\n/p; s/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22
	@echo; echo "Options, with their defaults: CATEGORY=$$CATEGORY PLATFORM=$$PLATFORM URL=$$URL"
	@echo "PRESET=edge|paper  DATA=auto|mvtec_ad|elpv|synthetic|FOLDER  STEPS=N or EPOCHS=N  WEIGHTS_DIR=FOLDER  IMAGES=FOLDER"; \
	echo "FOREGROUND=none|threshold|sam  BIT_DEPTH=BITS  ALIGN=off|auto|on  KNOWN_DEFECTS=FOLDER  REGIONS=FILE  PRECISION=fp32|fp16|int8  FORCE=1 to train anew; the run before is kept"

# Two environments, made by themselves and made again when their lists change.
# .triton/ has its own because the server's Python stub needs numpy 1.
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (a few minutes, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

.triton/.installed: deploy/triton-requirements.txt deploy/step-requirements.txt $(VENV)/.installed
	@echo "Setting up .triton (a minute, once)"
	@$(PYTHON) -m venv .triton
	@.triton/bin/python -m pip install --quiet -r deploy/triton-requirements.txt
	@$(PY) -m deploy prepare
	@touch $@

setup: $(VENV)/.installed .triton/.installed ## Both environments: .venv/ for the project, .triton/ for the server

# Plain `make` inside `deploy run`: lines with the variable are run by `make -n` too, and would start a server.
demo: setup ## All of it on real images: train, evaluate, export, serve, ask, benchmark, report
	@$(MAKE) --no-print-directory export
	@$(PY) -m deploy run --client-shm -- make --no-print-directory ask-and-measure
	@$(MAKE) --no-print-directory report
	@echo; echo "Next:"; \
	echo "  make export CATEGORY=pill             the same for a product of MVTec AD, or a synthetic one"; \
	echo "  make export CATEGORY=cup DATA=photos  for your own good images in the folder photos"; \
	echo "  make serve                            keep the server up, then: make predict CATEGORY=$$CATEGORY IMAGES=FOLDER"

.PHONY: ask-and-measure
ask-and-measure: # inside `deploy run`, which gives the server's address
	@$(FIND_IMAGES); $(PY) -m client predict "$$images" $(NAMED) --skip-broken \
	    --jsonl "$$RUN/predictions.jsonl" --overlays "$$RUN/overlays" $(OR_ANOMALIES)
	@$(FIND_IMAGES); $(PY) $(BENCH) --sweep-requests 0

##@ Your product
data: $(VENV)/.installed ## Lay out the images of CATEGORY
	@$(PY) -m train data $(DATA_OPTIONS)

train: $(VENV)/.installed ## Fit and calibrate, unless the run is up to date
	@$(PY) -m train fit $(DATA_OPTIONS) $(FIT_OPTIONS) $(FORCED)

evaluate: $(VENV)/.installed ## Train if needed, judge the test set; runs/CATEGORY/metrics.json and report.html
	@$(PY) -m train fit --as-before $(DATA_OPTIONS) $(FIT_OPTIONS) $(FORCED)
	@$(PY) -m train evaluate $(DATA_OPTIONS) $(WEIGHTS)

# Before hours of training, not after.
.PHONY: export-options
export-options:
	@case "$$PRECISION" in fp32|fp16|int8) ;; *) \
	    echo "Error: PRECISION is '$$PRECISION'; expected fp32, fp16 or int8." >&2; exit 2;; esac
	@case "$$PLATFORM" in python|onnxruntime|tensorrt) ;; *) \
	    echo "Error: PLATFORM is '$$PLATFORM'; expected python, onnxruntime or tensorrt." >&2; exit 2;; esac

export: export-options evaluate ## Train if needed, write and verify ONNX in PRECISION, publish into model_repository/
	@$(PY) -m export onnx $(PRECISELY) $(WEIGHTS)
	@$(if $(filter tensorrt,$(PLATFORM)),$(PY) -m export engine $(PRECISELY))
	@$(if $(filter tensorrt,$(PLATFORM)),$(PY) -m export verify $(NAMED) $(WEIGHTS))
	@$(PY) -m export publish $(PRECISELY) --platform "$$PLATFORM"

verify: $(VENV)/.installed ## Every build of CATEGORY beside PyTorch on its test set; the live ensemble too with URL
	@$(PY) -m export verify $(NAMED) $(if $(filter command line,$(origin URL)),--url "$$URL") $(WEIGHTS)

engine: $(VENV)/.installed ## Build TensorRT engines of CATEGORY in PRECISION; on the kind of GPU that will run them
	@$(PY) -m export engine $(PRECISELY)

engine-check: $(VENV)/.installed ## Would TensorRT take the graphs of CATEGORY? Without a GPU
	@$(PY) -m export engine $(NAMED) --check

##@ Serve
serve: setup ## Serve everything that is published, until Ctrl-C
	@$(PY) -m deploy serve

up: $(VENV)/.installed ## Triton, the page, Prometheus and Grafana as containers; PROFILE=gpu where there is a GPU
	@$(PY) -m deploy up --profile "$$PROFILE"

down: $(VENV)/.installed ## Stop those containers; what they have stored stays
	@$(PY) -m deploy down

# Nothing is installed before: it has to answer where there is no network, and where `make setup` fails.
doctor: ## What this machine has and lacks for serving, and what to do about it
	@[ -x $(PY) ] || { echo "Error: there is no $(VENV) here, which every command needs; run make setup." >&2; exit 1; }
	@$(PY) -m deploy doctor

predict: $(VENV)/.installed ## Ask a running server about IMAGES (default: the test set)
	@$(FIND_IMAGES); $(PY) -m client predict "$$images" $(NAMED) --url "$$URL" \
	    --jsonl "$$RUN/predictions.jsonl" --overlays "$$RUN/overlays" $(OR_ANOMALIES)

report: $(VENV)/.installed ## The page and table about what the server said
	@$(PY) -m client report --predictions "$$RUN/predictions.jsonl" --output "$$RUN/served.html" \
	    $(if $(wildcard $(RUN)/metrics.json),--metrics "$$RUN/metrics.json") \
	    $(if $(wildcard $(RUN)/bench/bench.json),--bench "$$RUN/bench/bench.json")

##@ Releases
# A server of this machine that serves the repository is found; another one is named with URL.
REASONED  := $(if $(filter command line,$(origin URL)),--url "$$URL") $(if $(REASON),--reason "$$REASON")
FOLLOWING := $(NAMED) $(REASONED)
TRUSTED   := $(if $(PUBLIC_KEY),--public-key "$$PUBLIC_KEY")

releases: $(VENV)/.installed ## All releases: which are live, since when, with what threshold; of CATEGORY alone where given
	@$(PY) -m deploy releases $(if $(filter command line,$(origin CATEGORY)),$(NAMED))

promote: $(VENV)/.installed ## Make release RELEASE=N of CATEGORY live while the server serves
	@$(if $(RELEASE),,echo "Error: give the release's number, RELEASE=N; make releases lists them." >&2; exit 2;) \
	    $(PY) -m deploy promote "$$RELEASE" $(FOLLOWING)

rollback: $(VENV)/.installed ## Make the release of CATEGORY live again that was live before
	@$(PY) -m deploy rollback $(FOLLOWING)

retune: $(VENV)/.installed ## Another threshold for CATEGORY: THRESHOLD=X, or RATE=0.01 IMAGES=good, or ESCAPES=FOLDER
	@$(PY) -m deploy retune $(FOLLOWING) $(if $(THRESHOLD),--threshold "$$THRESHOLD") \
	    $(if $(RATE),--false-reject-rate "$$RATE") $(if $(IMAGES),--images "$$IMAGES") \
	    $(if $(ESCAPES),--escapes "$$ESCAPES")

bundle: $(VENV)/.installed ## Pack release RELEASE=N of CATEGORY into OUTPUT=FILE (CATEGORY-N.bundle) for a machine without network
	@$(if $(RELEASE),,echo "Error: give the release's number, RELEASE=N; make releases lists them." >&2; exit 2;) \
	    $(PY) -m deploy bundle "$$RELEASE" $(NAMED) --output $(if $(OUTPUT),"$$OUTPUT","$$CATEGORY-$$RELEASE.bundle")

import: $(VENV)/.installed ## Add the release in BUNDLE=FILE; PROMOTE=1 makes it live too, PUBLIC_KEY=FILE asks for its signature
	@$(if $(BUNDLE),,echo "Error: give the file that make bundle wrote, BUNDLE=FILE." >&2; exit 2;) \
	    $(PY) -m deploy import "$$BUNDLE" $(if $(PROMOTE),--promote) $(REASONED) $(TRUSTED)

prune: $(VENV)/.installed ## What would go but for the last KEEP=N releases of each category; YES=1 removes it
	@$(if $(KEEP),,echo "Error: say how many releases of each category stay, KEEP=N." >&2; exit 2;) \
	    $(PY) -m deploy prune --keep "$$KEEP" $(if $(YES),--yes) $(REASONED)

check: $(VENV)/.installed ## Every file, record, signature and configuration of what is published; with PUBLIC_KEY=FILE all is signed
	@$(PY) -m deploy check $(TRUSTED)

audit: $(VENV)/.installed ## Who changed what is served, when and why; of CATEGORY alone where given
	@$(PY) -m deploy audit $(if $(filter command line,$(origin CATEGORY)),$(NAMED))

##@ Measure
bench: setup ## Latency and throughput of CATEGORY; starts a server unless URL is given
ifeq ($(origin URL),command line)
	@$(FIND_IMAGES); $(PY) $(BENCH) --url "$$URL"
else
	@$(FIND_IMAGES); $(PY) -m deploy run --client-shm -- $(PY) $(BENCH)
endif

# What `make bench-all` can measure; each has a target measure-<name>.
BENCHMARKS := sizes native categories peers fusion warm-up switching releases faults watching archive endurance training metrics detector page export verdict-metrics traces dashboards
.PHONY: no-such-benchmark $(BENCHMARKS:%=measure-%)

bench-all: $(if $(or $(filter-out $(BENCHMARKS),$(WHAT)),$(if $(WHAT),,missing)),no-such-benchmark,$(WHAT:%=measure-%)) ## Any other benchmark: WHAT=sizes|native|categories|peers|fusion|warm-up|switching|releases|faults|watching|archive|endurance|training|metrics|detector|page|export|verdict-metrics|traces|dashboards

no-such-benchmark:
	@echo "Error: WHAT is '$$WHAT'; expected one of: $(BENCHMARKS)." >&2; exit 2

measure-sizes: setup # latency against image size, 128 to 384 px
	@$(PY) -m tests.benchmarks.sizes $(if $(PRESET),--preset "$$PRESET")

measure-native: setup # pictures of a camera's size at their own: time a megapixel, in strips too, and memory
	@$(PY) -m tests.benchmarks.native

measure-categories: setup # memory, start-up and latency of 1, 5 and 15 categories over one teacher
	@$(FIND_IMAGES); $(PY) -m tests.benchmarks.categories --build "build/$$CATEGORY" --images "$$images"

measure-peers: setup $(VENV)/.bench-peers # CATEGORY's ensemble beside torch in FastAPI and pytriton's @batch
	@$(FIND_IMAGES); $(PY) -m tests.benchmarks.peers $(NAMED) --images "$$images"

measure-fusion: $(VENV)/.installed # the fusion of one image beside torch's filters
	@$(PY) -m tests.benchmarks.fusion

measure-warm-up: setup # the first request of a fresh server beside the hundredth
	@$(FIND_IMAGES); $(PY) -m tests.benchmarks.warm_up --build "build/$$CATEGORY" --images "$$images"

measure-switching: setup # seconds from promote, rollback and retune to the first answer
	@$(FIND_IMAGES); $(PY) -m tests.benchmarks.switching --build "build/$$CATEGORY" --images "$$images"

measure-releases: setup # 200 releases of 20 tiny categories: `releases`, `check`, the server's start-up and memory
	@$(PY) -m tests.benchmarks.many_releases

measure-faults: setup # what deploy serve does about faults; docs/measurements/faults.md
	@$(PY) -m tests.benchmarks.faults --build "build/$$CATEGORY"

measure-watching: setup # does watch lose a picture, or judge one twice? docs/measurements/watch.md
	@$(PY) -m tests.benchmarks.watching

measure-archive: setup # does archive keep a server busy, and stay small? docs/measurements/archive.md
	@$(PY) -m tests.benchmarks.archive

measure-endurance: setup # half an hour of mixed load: does the server grow, or slow?
	@$(PY) -m tests.benchmarks.endurance --build "build/$$CATEGORY"

measure-training: $(VENV)/.installed # training beside a plain loop of the same network
	@$(PY) -m tests.benchmarks.training $(if $(PRESET),--preset "$$PRESET") \
	    $(if $(WEIGHTS_DIR),--weights-dir "$$WEIGHTS_DIR",$(if $(filter paper,$(PRESET)),--random-weights))

measure-metrics: $(VENV)/.bench-peers # pixel measures: seconds, memory and values beside ADEval's
	@$(PY) -m tests.benchmarks.metrics

measure-detector: $(VENV)/.installed # what `edge` gives beside PaDiM and PatchCore: hours; CATEGORY for one set alone
	@$(PY) -m tests.benchmarks.detector $(if $(filter command line,$(origin CATEGORY)),--categories "$$CATEGORY") \
	    $(if $(DATA),--data "$$DATA") $(WEIGHTS)

measure-page: setup # 200 pictures a minute on the page in Debian's chromium, and 100,000 in its history
	@$(FIND_IMAGES); $(PY) -m tests.benchmarks.page --build "build/$$CATEGORY" --images "$$images"

measure-verdict-metrics: setup # what the metrics of verdicts take of a request; docs/measurements/verdict-metrics.md
	@$(FIND_IMAGES); $(PY) -m tests.benchmarks.verdict_metrics --build "build/$$CATEGORY" --images "$$images"

measure-traces: setup # what tracing costs in images a second, latency and processor time; docs/guides/traces.md
	@$(FIND_IMAGES); $(PY) -m tests.benchmarks.traces --build "build/$$CATEGORY" --images "$$images"

measure-dashboards: setup # the dashboards as pictures, drawn from a real Prometheus' answers: runs/benchmarks/dashboards
	@$(FIND_IMAGES); $(PY) -m tests.benchmarks.dashboards --build "build/$$CATEGORY" --images "$$images"

measure-export: $(VENV)/.installed # sizes and CPU latency of every build of CATEGORY beside float32
	@$(PY) -m export bench $(NAMED)

# On a machine with a GPU and without a network: its own Python, where there is no environment of ours.
gpu-check: ## Training, the bare pair and the fusion on a GPU in 8 minutes; docs/measurements/gpu-<card>.md; DEVICE=cpu to try
	@$(if $(wildcard $(PY)),$(PY),python3) -m tests.benchmarks.gpu_check --device "$$DEVICE"

$(VENV)/.bench-peers: $(VENV)/.installed
	@$(PY) -m pip install --quiet -c constraints.txt -e '.[bench-peers]'
	@touch $@

##@ Work on the code
# Two processes, a module in one of them; each with a server of its own, and with one thread so as not to get in the
# other's way.
test: setup ## All tests, those against the real server included
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile

MINUTES ?= 1
fuzz: $(VENV)/.installed ## Wrong pictures and tensors for MINUTES (default 1): each is judged or refused in a sentence
	@OMP_NUM_THREADS=1 $(PY) -m tests.fuzzing --minutes "$(MINUTES)"

lint: $(VENV)/.installed ## ruff, mypy --strict, import contracts, hadolint
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports
	@$(VENV)/bin/hadolint deploy/Dockerfile deploy/*.Dockerfile export/engines/*.Dockerfile

clean: ## Remove what was made; data/ and the environments stay
	rm -rf runs build logs
	git clean -fdXq model_repository
