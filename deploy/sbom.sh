#!/usr/bin/env bash
# What the service is made of: build/sbom.cdx.json (CycloneDX, from an environment with nothing but requirements/service.lock)
# and build/licences.md, refused when a licence is unknown or none that a product may carry. `make sbom` calls it.
#
# SBOM_PYTHON names an environment that is there already, of which only the locked packages are then judged.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools=${TOOLS:-.venv/bin}
output=${SBOM_OUTPUT:-build}
lock=requirements/service.lock
python=${SBOM_PYTHON:-}

mkdir -p "$output"
if [ -z "$python" ]; then
    "$tools/uv" venv --quiet --clear "$output/sbom-environment"
    python=$output/sbom-environment/bin/python
    "$tools/uv" pip install --quiet --python "$python" --no-deps --require-hashes --requirements "$lock"
fi

"$tools/cyclonedx-py" environment --pyproject pyproject.toml --output-reproducible --output-file "$output/sbom.cdx.json" "$python"

# What the lock installs on this machine.
mapfile -t packages < <("$tools/python" - "$lock" <<'END'
import sys
from packaging.requirements import Requirement
for line in open(sys.argv[1], encoding="utf-8"):
    if line[0].isalnum():
        requirement = Requirement(line.rstrip("\\\n "))
        if requirement.marker is None or requirement.marker.evaluate():
            print(requirement.name)
END
)

# LGPL-3.0 is psycopg's alone: a library that is used unchanged and can be replaced.
allowed='Apache;BSD;MIT;ISC;PSF;Python Software Foundation;MPL;Mozilla;Zlib;0BSD;Unlicense;HPND;CC0;ZPL;LGPL-3.0-only'
"$tools/pip-licenses" --python "$python" --with-system --from=mixed --order=license --format=markdown --with-urls \
    --packages "${packages[@]}" --partial-match --allow-only="$allowed" --output-file "$output/licences.md"
printf '%s packages in %s; licences in %s\n' "${#packages[@]}" "$output/sbom.cdx.json" "$output/licences.md"
