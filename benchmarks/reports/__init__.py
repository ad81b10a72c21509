"""Result rows or an adaptation become tables, plots and pages; nothing is trained here."""
