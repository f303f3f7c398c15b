# Only forwards; what the commands do stands in ./dev. Options: make chaos ARGS="--jobs 300000 --minutes 27".
.PHONY: run test faults chaos mutants test-oldest bench bench-full lint help
help run test faults chaos mutants test-oldest bench lint:
	@./dev $@ $(ARGS)
bench-full:
	@./dev bench --full $(ARGS)
