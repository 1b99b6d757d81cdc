"""From the nodes of a campaign to tables and figures."""
