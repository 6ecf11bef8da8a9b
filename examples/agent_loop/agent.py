from titan_sdk import TitanClient, TitanJob

client = TitanClient()
job = TitanJob(id="TASK", filename="risky_script.py")

# 1. Submit initial task
client.submit("agent_run", [job])

# 2. "Think" Loop
logs = client.fetch_logs(job.id)
if "ERROR" in logs:
    print("[ERR] Failure detected. Deploying Fix...")

    # Dynamic: The Agent creates a NEW job based on the error
    fix_job = TitanJob(id="FIX", filename="healer.py")
    client.submit("agent_fix", [fix_job])
