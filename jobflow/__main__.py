from jobflow.cli import main

main(prog_name="jobflow")
