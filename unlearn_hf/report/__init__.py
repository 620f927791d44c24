"""What a person reads at the end: tables, figures, and the page that compares runs (`write_report`)."""
