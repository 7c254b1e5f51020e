"""Runs the program of an unpacked image as Kubernetes would: not as root, on a root file system that cannot be written, without
capabilities, against a Postgres. In a network of its own, so that the addresses that the image sets are the ones that are tried.
usage, as root: unshare --net --mount exercise.py ROOT_FOLDER CONFIG_JSON POSTGRES_BIN"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT, CONFIG, POSTGRES = Path(sys.argv[1]).resolve(), json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3])
URL = "postgres://postgres@127.0.0.1:5432/postgres"
BYTES_MAX = 80 * 1024 * 1024
SHELLS = {"sh", "bash", "dash", "ash", "busybox", "apt", "apt-get", "dpkg", "perl", "python3"}
TOKENS = Path(__file__).resolve().parents[2] / "kubernetes" / "overlays" / "dev" / "tokens.json"


def check(what, holds):
    print(f"{'right' if holds else 'wrong'}: {what}")
    if not holds:
        sys.exit(1)


def contents():
    files = [path for path in ROOT.rglob("*") if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in files)
    program = ROOT / "usr/local/bin/dms"
    check(f"{size / 2**20:.1f} MiB in {len(files)} files, {program.stat().st_size / 2**20:.1f} of them the program", size < BYTES_MAX)
    ours = [path.name for path in ROOT.glob("usr/local/**/*") if path.is_file()]
    check(f"of ours it holds {ours}", ours == ["dms"])
    check("no shell, no package manager", not SHELLS & {path.name for path in ROOT.rglob("bin/*")})
    check("no program is set-uid", not [path for path in files if path.stat().st_mode & 0o6000])


def configuration():
    labels = CONFIG.get("Labels") or {}
    wanted = ("title", "description", "licenses", "version", "revision", "created")
    check("labels", all(labels.get(f"org.opencontainers.image.{name}") for name in wanted))
    check(f"user {CONFIG['User']}", CONFIG["User"] == "65532:65532")
    check(f"entry point {CONFIG['Entrypoint']} {CONFIG['Cmd']}",
          (CONFIG["Entrypoint"], CONFIG["Cmd"]) == (["/usr/local/bin/dms"], ["serve"]))
    check(f"health check {CONFIG['Healthcheck']['Test']}",
          CONFIG["Healthcheck"]["Test"] == ["CMD", "/usr/local/bin/dms", "healthcheck"])


STARTED = []


def start(arguments, quiet=False, **environment):
    """The program with these arguments, in the image and as its user, with the image's environment."""
    user, group = CONFIG["User"].split(":")
    variables = dict(variable.split("=", 1) for variable in CONFIG["Env"]) | {"DATABASE_URL": URL} | environment
    STARTED.append(subprocess.Popen(
        ["setpriv", "--no-new-privs", "unshare", f"--root={ROOT}", f"--setgid={group}", f"--setuid={user}",
         *CONFIG["Entrypoint"], *arguments], env=variables, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL if quiet else None))
    return STARTED[-1]


def ends_well(process, within):
    try:
        return process.wait(timeout=within) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        return False


def ask(url, body=None, method=None):
    request = urllib.request.Request(url, data=body, method=method, headers={"X-Auth-Token": "dms-dev-token"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, answer.read().decode()


def service():
    check("runs", ends_well(start(["--version"]), 10))
    check("three migrations at once", all([ends_well(process, 60) for process in [start(["migrate"]) for _ in range(3)]]))
    serving = start(CONFIG["Cmd"], DMS_AUTH="tokens", DMS_AUTH_TOKENS=TOKENS.read_text())
    healthcheck = CONFIG["Healthcheck"]["Test"][2:]
    begun = time.monotonic()
    while not ends_well(start(healthcheck, quiet=True), 10) and time.monotonic() < begun + 30:
        time.sleep(0.2)
    check(f"ready by its own health check, {time.monotonic() - begun:.1f} s after its start", ends_well(start(healthcheck), 10))
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{serving.pid}/status").read_text().splitlines() if ":\t" in line)
    check("no root, no capabilities, and none to be gained",
          set(status["Uid"].split()) == {"65532"} and set(status["Gid"].split()) == {"65532"} and not status["Groups"].strip()
          and int(status["CapEff"], 16) == 0 and status["NoNewPrivs"] == "1")
    check(f"resident memory at rest: {int(status['VmRSS'].split()[0]) / 1024:.0f} MiB", True)
    created, _ = ask("http://127.0.0.1:8080/v1.0/demo/queues", b'{"name":"orders"}')
    check("REST makes a queue", created == 201)
    _, metrics = ask("http://127.0.0.1:9464/metrics")
    check("metrics of the admin port count that", 'dms_calls_total{method="/dms.v1.QueueService/CreateQueue",code="OK"} 1' in metrics)
    gateway()
    begun = time.monotonic()
    serving.send_signal(signal.SIGTERM)
    ended = ends_well(serving, 35)
    check(f"ends by SIGTERM, after {time.monotonic() - begun:.1f} s", ended)
    check("the health check tells that it is gone", not ends_well(start(healthcheck, quiet=True), 10))


def gateway():
    """A gateway on its own in the same image, beside the service: so at other ports."""
    serving = start(["gateway"], DMS_UPSTREAM="http://127.0.0.1:50051", DMS_REST_ADDR="0.0.0.0:8081", DMS_ADMIN_ADDR="127.0.0.1:9465")
    healthcheck = CONFIG["Healthcheck"]["Test"][2:]
    asked = {"DMS_HEALTHCHECK_URL": "http://127.0.0.1:9465/readyz"}
    begun = time.monotonic()
    while not ends_well(start(healthcheck, quiet=True, **asked), 10) and time.monotonic() < begun + 30:
        time.sleep(0.2)
    check("a gateway on its own is ready by the same health check", ends_well(start(healthcheck, **asked), 10))
    status, _ = ask("http://127.0.0.1:8081/v1.0/demo/queues")
    check("it answers", status == 200)
    serving.send_signal(signal.SIGTERM)
    check("it ends by SIGTERM", ends_well(serving, 35))


def main():
    contents()
    configuration()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "--bind", ROOT, ROOT], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", ROOT], check=True)
    check("its file system cannot be written", os.statvfs(ROOT).f_flag & os.ST_RDONLY)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        subprocess.run([*as_nobody, POSTGRES / "initdb", f"--pgdata={folder}/data", "--username=postgres", "--auth=trust",
                        "--no-sync"], check=True, stdout=subprocess.DEVNULL, cwd="/")
        server = subprocess.Popen([*as_nobody, POSTGRES / "postgres", "-D", f"{folder}/data", "-k", folder, "-c", "fsync=off",
                                   "-c", "log_min_messages=fatal"], cwd="/", stderr=subprocess.DEVNULL)
        try:
            while subprocess.run([POSTGRES / "pg_isready", "-q", "-h", "127.0.0.1"], check=False).returncode:
                check("Postgres runs", server.poll() is None)
                time.sleep(0.2)
            service()
        finally:
            for process in STARTED:
                process.kill()
            server.send_signal(signal.SIGINT)
            server.wait(timeout=30)


main()
