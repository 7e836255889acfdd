"""`python -m genpolicy`."""

from genpolicy.app import main

if __name__ == "__main__":
    main()
