"""These files are run as their readers would run them: by test_examples.py and test_testing.py."""

collect_ignore_glob = ["*.py"]
