"""What a run looks like to a reader: tables, figures and a page of HTML."""
