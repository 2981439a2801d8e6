# One word for each job. CI calls check and test, and nothing else.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: setup demo demo-speech demo-captions test browser check docs docs-serve bench trials fuzz kills sanitize models models-of-studies queen queen-errors queen-model \
	results-images results-captions results-captions-converged results-speech results-digits-12 results-digits-deepspeech1 results-digits-deepspeech1-long \
	results-search results-search-noise40 results-search-noise20 results-search-noise20-first \
	results-search-warm-start results-search-vgg-noise40 results-search-vgg-clean results-search-fine-tune \
	results-search-images-converged results-search-captions results-search-digits results-search-emoji-noise40 \
	results-few-noise40 results-few-noise20 results-few-vgg-noise40 results-warm-scratch \
	results-vgg-clean results-vgg-noise20 results-vgg-noise40 results-warm-start \
	results-fine-tune results-images-converged results-fashion-mnist results-fashion-mnist-erased results-fashion-mnist-24 \
	results-images-default results-images-default-first results-emoji-default

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt $(wildcard src/redense/tensors/*.[ch])
	@test -n "$(PYTHON)" || { echo "redense needs Python 3.11 or newer with venv: make setup PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

# waiting threads sleep instead of spinning: two threads on two busy cores are else many times slower than one
define demo
	@run=1; while [ -e runs/demo-$$run ]; do run=$$((run + 1)); done; \
	OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive $(BIN)/redense train $(1) --out runs/demo-$$run && \
	echo "pictures: runs/demo-$$run/curves.png (phases) and runs/demo-$$run/histograms.png (one layer's weights, five moments)"
endef

demo: setup
	$(call demo,images)

demo-speech: setup
	$(call demo,speech --data tuxpaint-fr --batch 8 --augment spec --dense 16 --sparse 4 --redense 4)

demo-captions: setup
	$(call demo,captions)

test: setup browser
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

browser:
	@test -x /usr/bin/chromium -a -x /usr/bin/chromedriver || { apt-get update -q && \
		apt-get install -y -q --no-install-recommends chromium chromium-driver; }

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/test_architecture.py

docs: setup
	$(BIN)/mkdocs build --strict

docs-serve: setup
	$(BIN)/mkdocs serve

# every reader on 5,000 damaged files: about 10 minutes of one core
fuzz: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.fuzz --cases 5000

# 50 kills at random moments, each started again: about 20 minutes of two cores
kills: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.kills --kills 50

# the C kernel on 10,000 odd tensors under GCC's AddressSanitizer and UBSan: about a minute
sanitize: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.sanitize

# speed and memory; PEERS=/path/to/python of an environment with fasterai, nncf and torchao measures those too
bench: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks $(if $(PEERS),--peers $(PEERS))
	for name in beside imports start recipe_profile study_jobs study_overhead speech captions loader; do \
		OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.$$name || exit 1; \
	done

# what searches find and claim where the truth is known, and rules at release
trials: setup
	for name in search release; do OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.$$name || exit 1; done

# each results-* trains its study anew, into a fresh folder: the committed one stays what it is
# (of one that was stopped: the same with RUN=its number goes on)
JOBS ?= 2
define results
	@run=$${RUN:-1}; while [ -z "$$RUN" -a -e runs/results-$(1)-$$run ]; do run=$$((run + 1)); done; \
	out=runs/results-$(1)-$$run; \
	OMP_NUM_THREADS=1 $(BIN)/redense prove $(2) --out $$out --jobs $(JOBS) $(3) && \
	echo "compare with what is committed: diff $$out/summary.md results/$(1)/summary.md"
endef

# the study behind README's table: 34 minutes of one core
IMAGES = --seeds 12 --methods dense,longer,lower_lr,swa,pruned,random_dsd,dsd,dsdsd --train-images 5000 \
	--dense 8 --sparse 4 --redense 4 --sparse-lr 1 --redense-lr 0.1 --sparsity 0.3
results-images: setup
	$(call results,images,images,$(IMAGES))

# about an hour of two cores
SPEECH = --seeds 5 --methods dense,lower_lr,dsd,dsdsd --passes 1 --sparsity 0.5 \
	--dense 4 --sparse 2 --redense 2 --sparse-lr 0.625 --redense-lr 0.375
results-speech: setup
	$(call results,speech,speech,$(SPEECH))

# 14 minutes of two cores; the recipe's features and optimizer are others since: the scores of
# results/captions are those of commit 76c58db
CAPTIONS = --data emoji-tones --seeds 9 --methods dense,lower_lr,pruned,random_dsd,dsd --sparsity 0.8,0.5 \
	--dense 6 --sparse 5 --redense 2 --sparse-lr 1 --redense-lr 0.3 \
	--lr 0.001 --dropout 0.5 --beam 1 --least 3 --cnn-epochs 15
results-captions: setup
	$(call results,captions,captions,$(CAPTIONS))

# the image recipe's default plan beside one cosine of the same epochs: about 15 and 10 minutes of one core
DEFAULT = --first-seed 12 --seeds 12 --methods dense,longer,lower_lr,dsd --accelerator cpu \
	--dense 2 --sparse 2 --redense 4 --sparse-lr 1 --redense-lr 1
results-images-default: setup
	$(call results,images-default,images,$(DEFAULT) --train-images 10000)
results-emoji-default: setup
	$(call results,emoji-default,images,$(DEFAULT) --data emoji-groups --size 32)

# the same at the rates that were tried first
DEFAULT_FIRST = --seeds 12 --methods dense,longer,lower_lr,dsd --accelerator cpu \
	--train-images 10000 --dense 4 --sparse 2 --redense 2 --sparse-lr 1 --redense-lr 0.3
results-images-default-first: setup
	$(call results,images-default-first,images,$(DEFAULT_FIRST))

# all of Fashion-MNIST, the network of models/fashion-mnist-vgg-dsd: about 20 minutes of one core a seed
FASHION = --seeds 3 --methods dense,lower_lr,dsd --model vgg-small-bn --augment flip --precision bf16-mixed \
	--accelerator cpu --dense 8 --sparse 4 --redense 4 --sparse-lr 1 --redense-lr 0.3 --sparsity 0.3
results-fashion-mnist: setup
	$(call results,fashion-mnist,images,$(FASHION))

# the same network on pictures with pieces missing, for longer: about 35 minutes of one core a seed
FASHION_ERASED = --seeds 3 --methods dense,lower_lr,dsd --model vgg-small-bn --augment flip-erase \
	--precision bf16-mixed --accelerator cpu --dense 8 --sparse 6 --redense 10 --sparse-lr 1 --redense-lr 1 --sparsity 0.3
results-fashion-mnist-erased: setup
	$(call results,fashion-mnist-erased,images,$(FASHION_ERASED))

# the same in one course of 24 epochs, and 12 behind it at lower rates: about 40 minutes of one core a seed
FASHION_24 = --seeds 3 --methods dense,lower_lr,dsd --model vgg-small-bn --augment flip-erase \
	--precision bf16-mixed --accelerator cpu --dense 24 --sparse 6 --redense 6 --sparse-lr 0.3 --redense-lr 0.1 --sparsity 0.3
results-fashion-mnist-24: setup
	$(call results,fashion-mnist-24,images,$(FASHION_24))

# captions trained out, at the paper's factors of the rate: about 80 minutes of one core
CAPTIONS_CONVERGED = --seeds 12 --methods dense,longer,lower_lr,early_stop,full_lr,swa,dsd,relearn --accelerator cpu \
	--dense 30 --sparse 10 --redense 10 --sparse-lr 0.1 --redense-lr 0.01 --sparsity 0.8,0.5
results-captions-converged: setup
	$(call results,captions-converged,captions,$(CAPTIONS_CONVERGED))

# strings of spoken digits to convergence, the paper's factors for DeepSpeech 2: about 45 minutes of one core
DIGITS = --seeds 12 --methods dense,lower_lr,early_stop,swa,dsd \
	--data spoken-digits --stride 2 --dropout 0.4 --accelerator cpu \
	--dense 16 --sparse 5 --redense 5 --passes 1 --sparse-lr 1 --redense-lr 0.1 --sparsity 0.5
results-digits-12: setup
	$(call results,digits-12,speech,$(DIGITS))

# the same strings and the paper's other recogniser, its two passes and factors of the rate: 105 minutes of one core
DEEPSPEECH1 = --data spoken-digits --model deepspeech1 --width 384 --stride 2 --dropout 0.4 --accelerator cpu \
	--seeds 12 --methods dense,lower_lr,early_stop,swa,dsd --dense 20 --sparse 4 --redense 4 --passes 2 \
	--sparsity 0.5/0.25 --sparse-lr 0.625/0.125 --redense-lr 0.375/0.0375
results-digits-deepspeech1: setup
	$(call results,digits-deepspeech1,speech,$(DEEPSPEECH1))

# the same with a dense phase twice as long, trained out by the studies' own rule: about 110 minutes of one busy core
DEEPSPEECH1_LONG = $(subst --dense 20,--first-seed 100 --dense 40,$(DEEPSPEECH1))
results-digits-deepspeech1-long: setup
	$(call results,digits-deepspeech1-long,speech,$(DEEPSPEECH1_LONG))

# the studies of docs/when.md on the paper's kind of network: about 25 minutes of one core each
VGG = --seeds 12 --methods dense,longer,lower_lr,early_stop,full_lr,swa,pruned,random_dsd,dsd,relearn \
	--model vgg-small --train-images 1000 --valid-share 0.0167 --augment none --batch 32 --lr 0.02 \
	--dense 30 --sparse 10 --redense 10 --sparse-lr 0.1 --redense-lr 0.01 --sparsity 0.3
results-vgg-clean: setup
	$(call results,vgg-clean,images,$(VGG))
results-vgg-noise20: setup
	$(call results,vgg-noise20,images,$(VGG) --label-noise 0.2)
results-vgg-noise40: setup
	$(call results,vgg-noise40,images,$(VGG) --label-noise 0.4)

# the small net, regularised (batch-norm, weight decay, mirrored pictures), trained out: 30 + 30 epochs;
# 53 minutes of one core
CONVERGED = --seeds 12 --methods dense,longer,lower_lr,early_stop,full_lr,swa,random_dsd,dsd,relearn \
	--train-images 2000 --valid-share 0.0334 --accelerator cpu \
	--dense 30 --sparse 15 --redense 15 --sparse-lr 0.1 --redense-lr 0.01 --sparsity 0.3
results-images-converged: setup
	$(call results,images-converged,images,$(CONVERGED))

# new data for an old network: trained on 1,000 images, gone on with on 2,000
WARM = --model vgg-small --valid-share 0.0167 --augment none --batch 32 --lr 0.02 --accelerator cpu
WARM_STUDY = --seeds 12 --train-images 2000 --sparse 8 --redense 8 --sparse-lr 1 --redense-lr 0.1 --sparsity 0.3 \
	--methods dense,longer,lower_lr,early_stop,full_lr,shrink_perturb,swa,pruned,random_dsd,dsd,relearn
runs/warm-start/model.safetensors:
	OMP_NUM_THREADS=1 $(BIN)/redense train images $(WARM) --train-images 1000 --seed 1000 \
		--dense 60 --sparse 0 --redense 0 --out runs/warm-start
results-warm-start: setup runs/warm-start/model.safetensors
	$(call results,warm-start,images,$(WARM) $(WARM_STUDY) --init runs/warm-start/model.safetensors)

# the same 2,000 images from scratch: 16 epochs, and 46
WARM_SCRATCH = $(WARM) --train-images 2000 --seeds 12 --methods dense,longer,lower_lr \
	--dense 16 --sparse 15 --redense 15 --sparsity 0.3
results-warm-scratch: setup
	$(call results,warm-scratch,images,$(WARM_SCRATCH))

# an old network for another task: trained on one artist's emoji, fine-tuned on 500 of another's; 28 minutes of one core
FINE = --model small --augment flip-crop --accelerator cpu
FINE_STUDY = --seeds 12 --train-images 500 --batch 32 --lr 0.03 \
	--sparse 12 --redense 12 --sparse-lr 1 --redense-lr 0.1 --sparsity 0.3 \
	--methods dense,longer,lower_lr,early_stop,full_lr,shrink_perturb,swa,pruned,random_dsd,dsd,relearn
runs/fine-tune/model.safetensors:
	OMP_NUM_THREADS=1 $(BIN)/redense train images $(FINE) --data openmoji-groups --seed 1000 \
		--dense 40 --sparse 0 --redense 0 --out runs/fine-tune
results-fine-tune: setup runs/fine-tune/model.safetensors
	$(call results,fine-tune,images,$(FINE) --data twemoji-groups $(FINE_STUDY) --init runs/fine-tune/model.safetensors)

# searches, tuned plans against tuned controls; of one that was stopped the same with RUN=its number goes on
define search
	@run=$${RUN:-1}; while [ -z "$$RUN" -a -e runs/results-$(1)-$$run ]; do run=$$((run + 1)); done; \
	OMP_NUM_THREADS=1 $(BIN)/redense search $(2) --out runs/results-$(1)-$$run --jobs $(JOBS) $(3)
endef

# of results/search-label-noise: 40 % of the labels are wrong; 30 minutes of two busy cores
SEARCH = --data fashion-mnist --train-images 1000 --valid-share 0.0334 --label-noise 0.4 --batch 64 \
	--dense 40 --epochs 16 --trials 40 --seeds 3 --confirm 10 --decay constant
results-search: setup
	$(call search,search,images,$(SEARCH))

# the same with a shared phase that comes to rest, and fewer trials
SEARCH_NOISE40 = --train-images 1000 --valid-share 0.0334 --label-noise 0.4 --batch 64 --accelerator cpu \
	--dense 40 --epochs 16 --trials 24 --seeds 2 --confirm 12
results-search-noise40: setup
	$(call search,search-noise40,images,$(SEARCH_NOISE40))

# the network of results/vgg-noise20; 20 minutes of one busy core each
SEARCH_VGG = --model vgg-small --train-images 1000 --valid-share 0.0167 --augment none --batch 32 --lr 0.02 \
	--accelerator cpu --dense 30 --epochs 20 --trials 24 --seeds 2 --confirm 12
results-search-noise20: setup
	$(call search,search-noise20,images,--label-noise 0.2 $(SEARCH_VGG))
results-search-noise20-first: setup
	$(call search,search-noise20-first,images,--label-noise 0.2 --decay constant $(SEARCH_VGG))

# new data for an old network, results/warm-start
SEARCH_WARM = $(WARM) --train-images 2000 --init runs/warm-start/model.safetensors \
	--dense 0 --epochs 16 --trials 12 --seeds 2 --confirm 12
results-search-warm-start: setup runs/warm-start/model.safetensors
	$(call search,search-warm-start,images,$(SEARCH_WARM))

# the networks of results/vgg-noise40, results/vgg-clean and results/fine-tune, everything tuned; 30, 6 and 24 minutes of
# one busy core
results-search-vgg-noise40: setup
	$(call search,search-vgg-noise40,images,--label-noise 0.4 $(SEARCH_VGG))
SEARCH_CLEAN = $(SEARCH_VGG) --dense 50 --trials 12
results-search-vgg-clean: setup
	$(call search,search-vgg-clean,images,$(SEARCH_CLEAN))
SEARCH_FINE = $(FINE) --data twemoji-groups --train-images 500 --batch 32 --lr 0.03 \
	--init runs/fine-tune/model.safetensors --dense 0 --epochs 24 --trials 12 --seeds 2 --confirm 12
results-search-fine-tune: setup runs/fine-tune/model.safetensors
	$(call search,search-fine-tune,images,$(SEARCH_FINE))

# that of results/images-converged; about 40 minutes of one core
SEARCH_CONVERGED = --train-images 2000 --valid-share 0.0334 --accelerator cpu \
	--dense 30 --epochs 30 --trials 12 --seeds 2 --confirm 12
results-search-images-converged: setup
	$(call search,search-images-converged,images,$(SEARCH_CONVERGED))

# those of results/captions-converged, 80 minutes of one core, and results/digits-deepspeech1, 95 minutes of one core
SEARCH_CAPTIONS = --accelerator cpu --space results/search-captions/space.toml \
	--dense 30 --epochs 20 --trials 12 --seeds 2 --confirm 12
results-search-captions: setup
	$(call search,search-captions,captions,$(SEARCH_CAPTIONS))
SEARCH_DIGITS = --data spoken-digits --model deepspeech1 --width 384 --stride 2 --dropout 0.4 --accelerator cpu \
	--space results/search-digits/space.toml --dense 20 --epochs 16 --trials 8 --seeds 2 --confirm 12
results-search-digits: setup
	$(call search,search-digits,speech,$(SEARCH_DIGITS))

# wrong labels on colour drawings: groups of emoji, 32 px; 45 minutes of one core
SEARCH_EMOJI = --data emoji-groups --size 32 --label-noise 0.4 --batch 64 --accelerator cpu \
	--dense 60 --epochs 16 --trials 24 --seeds 2 --confirm 12
results-search-emoji-noise40: setup
	$(call search,search-emoji-noise40,images,$(SEARCH_EMOJI))

# what five trials find: the first five of results/search-noise40, of search-noise20, of search-vgg-noise40
results-few-noise40: setup
	$(call search,few-noise40,images,$(SEARCH_NOISE40) --trials 5)
results-few-noise20: setup
	$(call search,few-noise20,images,--label-noise 0.2 $(SEARCH_VGG) --trials 5)
results-few-vgg-noise40: setup
	$(call search,few-vgg-noise40,images,--label-noise 0.4 $(SEARCH_VGG) --trials 5)

# README's picture: the page of the proof that examples/prove.py makes
docs/proof.png: setup browser
	folder=$$(mktemp -d) && cd $$folder && OMP_NUM_THREADS=1 $(CURDIR)/$(BIN)/python $(CURDIR)/examples/prove.py && \
		$(CURDIR)/$(BIN)/redense report runs/spirals --out proof.html && \
		chromium --headless --no-sandbox --hide-scrollbars --window-size=1100,1480 --screenshot=$(CURDIR)/docs/proof.png $$folder/proof.html

# the trained networks that come along: 4 minutes of one core each
models: setup
	run=$$(mktemp -d)/fashion-mnist && OMP_NUM_THREADS=1 $(BIN)/redense train images --accelerator cpu --out $$run && \
		$(BIN)/redense export $$run models/fashion-mnist-dsd --format onnx && \
		cp $$run/record.json models/fashion-mnist-dsd/
	run=$$(mktemp -d)/emoji && OMP_NUM_THREADS=1 $(BIN)/redense train captions --accelerator cpu --out $$run && \
		$(BIN)/redense export $$run models/emoji-dsd && cp $$run/record.json models/emoji-dsd/

# English from a game of 1995: 2 hours 33 minutes of one busy core; the same command goes on
QUEEN = --data amazon-queen --accelerator cpu --dropout 0.3 --augment spec --width 320 \
	--dense 76 --sparse 12 --redense 12 --passes 1 --sparsity 0.5 --sparse-lr 0.3 --redense-lr 0.1
queen: setup
	OMP_NUM_THREADS=1 $(BIN)/redense train speech \
		$(if $(wildcard runs/queen/config.json),--resume runs/queen,$(QUEEN) --out runs/queen)

# its word errors with a language model of the training transcripts: after apt-get install irstlm, some minutes
queen-errors: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.queen

# and that network as it comes along
queen-model: setup
	$(BIN)/redense export runs/queen models/amazon-queen-dsd && cp runs/queen/record.json models/amazon-queen-dsd/

# seed 0's dense network of a study and its dense-sparse-dense one, with the study's verdict on their cards; after
# make results-fashion-mnist-24 RUN=1, results-captions-converged RUN=1 and results-digits-12 RUN=1
define models_of
	for method in dense $(2); do \
		folder=models/$(3)-$$(echo $$method | cut -d @ -f 1) && \
		$(BIN)/redense export runs/results-$(1)-$(or $(RUN),1)/$$method--0 $$folder $(4) && \
		cp runs/results-$(1)-$(or $(RUN),1)/$$method--0/record.json $$folder/ || exit 1; \
	done
endef

models-of-studies: setup
	$(call models_of,fashion-mnist-24,dsd,fashion-mnist-vgg,--format onnx)
	$(call models_of,captions-converged,dsd@0.5,emoji-converged)
	$(call models_of,digits-12,dsd,spoken-digits,--format onnx)
