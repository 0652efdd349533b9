"""`python -m bench`."""

if __name__ == "__main__":
    try:
        from bench.cli import main

        code = main()
    except KeyboardInterrupt:  # while the bench is still being imported
        code = 130
    raise SystemExit(code)
