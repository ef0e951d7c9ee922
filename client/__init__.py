"""deployer.client: the verbs that talk to a running service. It knows the service by its REST API alone.

Nothing here is imported until a verb is run, and each verb loads what it needs: that is why they answer at once.
"""
