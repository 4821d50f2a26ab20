"""Builds the Kubernetes programs and the pause program from the Go module proxy, once, into the cache folder.

`python -m tests.kube.build` prints the folder. It must not touch the checkout: sources come from the module cache,
binaries go to `.cache/kubernetes/VERSION`, which is their name in every later run.
"""

import json
import os
import re
import subprocess
from pathlib import Path

VERSION = "1.36.3"
STAGING = "v0.36.3"
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet")

PAUSE = """\
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
}
"""


def cache() -> Path:
    """The folder for what is built or fetched once: `$WGPY_CACHE`, else `.cache` of the checkout."""
    default = Path(__file__).resolve().parents[2] / ".cache"
    return Path(os.environ.get("WGPY_CACHE", default)).resolve()


def binaries() -> Path:
    """Where the built programs lie (whether they are built is `built()`)."""
    return cache() / "kubernetes" / VERSION


def built() -> bool:
    """Whether every program of this version is in the cache."""
    return all((binaries() / name).exists() for name in (*PROGRAMS, "pause"))


def module_file(upstream: str) -> str:
    """A go.mod of our own that can build `k8s.io/kubernetes` as a dependency.

    Its go.mod requires the staging modules at v0.0.0, which only its own checkout can resolve; ours replaces each
    by the published module of the same release.
    """
    staging = re.findall(r"^\s*(k8s\.io/\S+) v0\.0\.0$", upstream, re.MULTILINE)
    required = re.findall(r"^\s+(\S+) (v\S+)", upstream, re.MULTILINE)
    language = re.search(r"^go (\S+)", upstream, re.MULTILINE)
    godebug = re.search(r"^godebug \([^)]*\)", upstream, re.MULTILINE)
    assert language is not None
    lines = ["module example.invalid/kubernetes", f"go {language[1]}"]
    if godebug is not None:
        lines.append(godebug[0])
    lines.append("require (\n\tk8s.io/kubernetes v" + VERSION)
    lines += [f"\t{module} {STAGING if version == 'v0.0.0' else version}" for module, version in required]
    lines.append(")\nreplace (")
    lines += [f"\t{module} => {module} {STAGING}" for module in staging]
    lines.append(")\n")
    return "\n".join(lines)


def build() -> Path:
    """Build what is missing; about ten minutes of two cores with a cold cache, then nothing."""
    target = binaries()
    if built():
        return target
    workshop = cache() / "kubernetes" / f"build-{VERSION}"
    workshop.mkdir(parents=True, exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}

    def go(*arguments: str, capture: bool = False) -> str:
        done = subprocess.run(["go", *arguments], cwd=workshop, env=env, check=True, text=True,
                              stdout=subprocess.PIPE if capture else None)  # fmt: skip
        return done.stdout or ""

    # The pause program first: it has no dependency, and a missing go.mod is fine for one file.
    (workshop / "pause.go").write_text(PAUSE)
    go("build", "-trimpath", "-ldflags", "-s -w", "-o", str(target / "pause"), "pause.go")
    (workshop / "pause.go").unlink()

    (workshop / "go.mod").unlink(missing_ok=True)
    downloaded = json.loads(go("mod", "download", "-json", f"k8s.io/kubernetes@v{VERSION}", capture=True))
    (workshop / "go.mod").write_text(module_file((Path(downloaded["Dir"]) / "go.mod").read_text()))
    imports = "\n".join(f'\t_ "k8s.io/kubernetes/cmd/{name}"' for name in PROGRAMS)
    (workshop / "tools.go").write_text(f"//go:build tools\n\npackage tools\n\nimport (\n{imports}\n)\n")
    version = "k8s.io/component-base/version"
    major, minor, _ = VERSION.split(".")
    settings = {"gitVersion": f"v{VERSION}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    flags = "-s -w " + " ".join(f"-X {version}.{key}={value}" for key, value in settings.items())
    for name in PROGRAMS:
        if not (target / name).exists():
            partial = target / f"{name}.partial"
            go("build", "-trimpath", "-ldflags", flags, "-o", str(partial), f"k8s.io/kubernetes/cmd/{name}")
            partial.rename(target / name)
    return target


if __name__ == "__main__":
    print(build())
