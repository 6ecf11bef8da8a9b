"""The job that the agent adds once it has read the first one's log."""

print("step 2 written; the plan is whole again")
