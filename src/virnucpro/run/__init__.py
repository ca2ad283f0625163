"""One run: settings, plan, runner, journal, log, tables. Knows no terminal and no kernel."""
