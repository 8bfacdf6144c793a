"""Archives of X-rays: scored on all cores of a machine or on a cluster, with nothing lost when something stops."""
