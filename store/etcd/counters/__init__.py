"""Numbers that all processes count together: places in the order of arrival, and how much a namespace stores."""
