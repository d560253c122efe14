#!/usr/bin/env python3
"""Holds what is built in against deny.toml: licences, crates that may not be there or not twice, sources.

The same rules as `cargo deny check licenses bans sources`, of which compiling would take longer than all else here.
"""
import json
import pathlib
import re
import subprocess
import sys
import tomllib
from collections import defaultdict

root = pathlib.Path(__file__).resolve().parent.parent
rules = tomllib.loads((root / "deny.toml").read_text())
allowed = set(rules["licenses"]["allow"])
exceptions = {exception["crate"]: set(exception["allow"]) for exception in rules["licenses"].get("exceptions", [])}


def satisfied(expression, allowed):
    """Whether an SPDX expression can be met by allowed licences alone."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))
    position = 0

    def alternatives():
        nonlocal position
        good = conjunction()
        while position < len(tokens) and tokens[position] == "OR":
            position += 1
            good = conjunction() or good
        return good

    def conjunction():
        nonlocal position
        good = licence()
        while position < len(tokens) and tokens[position] == "AND":
            position += 1
            good = licence() and good
        return good

    def licence():
        nonlocal position
        token = tokens[position]
        position += 1
        if token == "(":
            good = alternatives()
            position += 1
            return good
        if tokens[position : position + 1] == ["WITH"]:
            token = f"{token} WITH {tokens[position + 1]}"
            position += 2
        return token.rstrip("+") in allowed

    return alternatives()


packages = {}
for target in rules["graph"]["targets"]:
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE).stdout)
    used = {node["id"] for node in metadata["resolve"]["nodes"]}
    packages.update({package["id"]: package for package in metadata["packages"] if package["id"] in used})

findings, versions = [], defaultdict(set)
registries = {f"registry+{registry}" for registry in rules["sources"]["allow-registry"]}
for package in packages.values():
    name = f"{package['name']} {package['version']}"
    versions[package["name"]].add(package["version"])
    if package["source"] is not None and package["source"] not in registries:
        findings.append(f"{name} comes from {package['source']}")
    if not package["license"] or not satisfied(package["license"], allowed | exceptions.get(package["name"], set())):
        findings.append(f"{name} is licensed under {package['license'] or 'nothing that is named'}")
for ban in rules["bans"]["deny"]:
    found = versions.get(ban["crate"], set())
    if ban.get("deny-multiple-versions"):
        if len(found) > 1:
            findings.append(f"{ban['crate']} is there more than once: {', '.join(sorted(found))}")
    elif found:
        findings.append(f"{ban['crate']} may not be there")

print("\n".join(sorted(findings)) or f"dependencies: {len(packages)} crates, all within deny.toml")
sys.exit(1 if findings else 0)
