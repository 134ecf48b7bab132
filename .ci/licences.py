"""Writes what the program is made of, with licences: THIRD_PARTY.md, and their texts in a folder.

Arguments: the target, the folder of MLX's libraries, the folder to write to.
"""

import json
import pathlib
import shutil
import subprocess
import sys

# What lies in lib/semantic besides MLX itself. The texts of those that PyPI's wheel carries are on
# the pages named; GCC's exception lets a program that uses its libraries have any licence.
BUNDLED = [
    ("libmlx", "MLX", "MIT", "https://github.com/ml-explore/mlx"),
    ("libjaccl", "MLX (JACCL)", "MIT", "https://github.com/ml-explore/mlx"),
    ("mlx.metallib", "MLX (Metal kernels)", "MIT", "https://github.com/ml-explore/mlx"),
    ("libblas", "Reference BLAS", "BSD-3-Clause", "https://www.netlib.org/blas/"),
    ("liblapack", "Reference LAPACK", "BSD-3-Clause", "https://www.netlib.org/lapack/"),
    ("libopenblas", "OpenBLAS", "BSD-3-Clause", "https://www.openblas.net/"),
    ("libgfortran", "GCC's Fortran library", "GPL-3.0 WITH GCC-exception-3.1",
     "https://gcc.gnu.org/onlinedocs/libstdc++/manual/license.html"),
    ("libquadmath", "GCC's quad-precision library", "LGPL-2.1-or-later",
     "https://gcc.gnu.org/onlinedocs/libquadmath/"),
    ("libgcc_s", "GCC's support library", "GPL-3.0 WITH GCC-exception-3.1",
     "https://gcc.gnu.org/onlinedocs/libstdc++/manual/license.html"),
]
# Texts that several of these have in common, where this system has them.
DEBIAN = pathlib.Path("/usr/share/common-licenses")
COMMON = ("Apache-2.0", "BSD", "GPL-3", "LGPL-2.1")
TEXTS = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE", "COPYRIGHT")


def main(target, mlx, out):
    texts = out / "licences"
    if texts.exists():
        shutil.rmtree(texts)
    texts.mkdir(parents=True)
    lines = ["# What this program is made of", "", "## Libraries in lib/semantic", ""]
    lines += ["| file | what | licence | more |", "| --- | --- | --- | --- |"]
    for file in sorted(mlx.iterdir()):
        found = [entry for entry in BUNDLED if file.name.startswith(entry[0])]
        if not found:
            sys.exit(f"error: nothing is known of the licence of {file}")
        lines.append(f"| {file.name} | {found[0][1]} | {found[0][2]} | {found[0][3]} |")
    lines += ["", "GCC's libraries come as MLX's package has them; https://gcc.gnu.org has their sources."]
    lines += ["Compiled into bin/semantic: mlx-c (MIT, https://github.com/ml-explore/mlx-c) and the"]
    lines += ["standard library of Rust (MIT OR Apache-2.0, https://www.rust-lang.org)."]
    for name in COMMON:
        if (DEBIAN / name).is_file():
            keep(DEBIAN / name, texts / "common")
    for text in sorted(mlx.parent.glob("*.dist-info/licenses/*")):
        keep(text, texts / "mlx")

    lines += ["", "## Crates in bin/semantic", "", "Their texts are in `licences/`; of a crate without one it is that of `licences/mlx` or `licences/common`.", ""]
    lines += ["| crate | version | licence |", "| --- | --- | --- |"]
    for package in crates(target):
        licence = package["license"] or f"see {package['license_file']}"
        lines.append(f"| {package['name']} | {package['version']} | {licence} |")
        source = pathlib.Path(package["manifest_path"]).parent
        for text in sorted(source.iterdir()):
            if text.is_file() and text.name.upper().startswith(TEXTS):
                keep(text, texts / f"{package['name']}-{package['version']}")
    (out / "THIRD_PARTY.md").write_text("\n".join(lines) + "\n")


def crates(target):
    """Every crate of a registry that ends up in the program."""
    tree = run("cargo", "tree", "--locked", "--edges", "normal", "--target", target,
               "--package", "semantic", "--prefix", "none", "--format", "{p}")
    used = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
    metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1",
                              "--filter-platform", target))
    packages = [package for package in metadata["packages"] if package["source"]]
    return [package for package in sorted(packages, key=lambda it: (it["name"], it["version"]))
            if (package["name"], f"v{package['version']}") in used]


def keep(text, folder):
    folder.mkdir(exist_ok=True)
    shutil.copyfile(text, folder / text.name)


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


main(sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
