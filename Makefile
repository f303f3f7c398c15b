# Only forwards; what the commands do stands in ./dev.
.PHONY: run test test-oldest lint help
help run test test-oldest lint:
	@./dev $@
