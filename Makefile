# Only forwards; what the commands do stands in ./dev. Options: make chaos ARGS="--jobs 300000 --minutes 27".
.PHONY: run test faults chaos mutants test-oldest lint help
help run test faults chaos mutants test-oldest lint:
	@./dev $@ $(ARGS)
