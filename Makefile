# make demo: words to 3D goals on this machine, from nothing. `make help` lists the rest.
# ROS_DISTRO=jazzy on the command line chooses another set of ROS wheels; PYTHON=python3.12 another Python.

.DEFAULT_GOAL := help
.PHONY: help demo demo-live test smoke lint clean

ON_A_GRAPH = ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_DOMAIN_ID=$${ROS_DOMAIN_ID:-87} \
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=PASSIVE
# What would break first on another ROS: interfaces, parameters, services and action with cancel.
SMOKE = tests/test_interfaces.py tests/nodes/test_declared_parameters.py tests/nodes/test_request_server.py

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

demo: ## set everything up, start simulator, arm and nodes, point at several things, pick and place one, film it
	@tools/run python tools/demo.py

demo-live: ## the same, but stay up for your own words, typed or by tools/ask "the blue mug"
	@tools/run python tools/demo.py --live

test: lint ## lint, then all tests on a real ROS graph
	@tools/run env $(ON_A_GRAPH) python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

smoke: ## the tests that would break first on another ROS: make smoke ROS_DISTRO=jazzy
	@tools/run env $(ON_A_GRAPH) python -m pytest $(SMOKE)

lint: ## ruff and mypy
	@tools/run ruff check .
	@tools/run mypy

clean: ## remove everything that setup, build and tests made
	rm -rf .ros build install log .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
