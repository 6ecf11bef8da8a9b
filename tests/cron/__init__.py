"""The calendar against a scan of every minute: `nox -s cron` near each change of clocks, `cron-full` all."""
