"""`lungnodule models`: what is in the model store, and whether it is what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import evaluation
from app.cli.exits import EXIT_CODES_HELP, ExitCode, errors_in_one_line
from app.cli.setup import find_named_model, quiet_libraries, settings_with

if TYPE_CHECKING:
    from app.inference.manifest import ModelManifest, NetworkFile

ModelName = Annotated[str, typer.Argument(metavar="NAME[:VERSION]", help="Without a version the newest.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def command_group() -> typer.Typer:
    """`models list`, `show`, `verify`, `activate`, `deactivate`, `evaluate`, `compare`."""
    group = typer.Typer(
        help="List, show, verify, choose, evaluate and compare the models of the store (LUNGNODULE_MODEL_STORE).",
        no_args_is_help=True,
    )
    group.command("list", epilog=EXIT_CODES_HELP)(list_)
    group.command("show", epilog=EXIT_CODES_HELP)(show)
    group.command("verify", epilog=EXIT_CODES_HELP)(verify)
    group.command("activate", epilog=EXIT_CODES_HELP)(activate)
    group.command("deactivate", epilog=EXIT_CODES_HELP)(deactivate)
    group.command("evaluate", epilog=EXIT_CODES_HELP)(evaluation.evaluate)
    group.command("compare", epilog=EXIT_CODES_HELP)(evaluation.compare)
    return group


def list_(as_json: AsJson = False) -> None:
    """List every model and version.

    For example: `lungnodule models list`
    """
    with errors_in_one_line():
        import json

        from app.inference.model_store import list_models

        models = list_models(settings_with().model_store)
        if as_json:
            rows = [{"name": m.name, "version": m.version, "path": str(m.path)} for m in models]
            typer.echo(json.dumps(rows, indent=2))
            return
        for model in models:
            typer.echo(f"{model.name}:{model.version}  {model.path}")


def show(name: ModelName, as_json: AsJson = False) -> None:
    """Show a model's manifest: intended use, operating points, measured figures, provenance.

    For example: `lungnodule models show lungnodule`
    """
    with errors_in_one_line():
        from app.inference.manifest import load_manifest

        folder = find_named_model(settings_with(), name)
        manifest = load_manifest(folder.path)
        typer.echo(manifest.model_dump_json(indent=2) if as_json else _described(manifest))


def verify(
    name: Annotated[str | None, typer.Argument(metavar="[NAME[:VERSION]]", help="One model; without it, all.")] = None,
) -> None:
    """Check each file of a model against the sha256 in its manifest.

    For example: `lungnodule models verify`
    """
    from app.imaging.errors import ModelError

    with errors_in_one_line():
        from app.inference.model_store import list_models, verify_model

        settings = settings_with()
        folders = list_models(settings.model_store) if name is None else [find_named_model(settings, name)]
        if not folders:
            raise ModelError(f"The model store {settings.model_store} holds no model.", code="store_empty")
        damaged = 0
        for folder in folders:
            try:
                verify_model(folder.path)
            except ModelError as error:
                damaged += 1
                typer.echo(f"error[{error.code}]: {error.message}", err=True)
            else:
                typer.echo(f"{folder.name}:{folder.version}  verified")
        if damaged:
            raise typer.Exit(ExitCode.MODEL)


def activate(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    version: Annotated[str, typer.Argument(help="Its version.")],
) -> None:
    """Verify, load and warm up a model of the store, then let it answer where a request names none.

    As POST /v1/models/NAME/VERSION/activate: for every process of the database of LUNGNODULE_DATABASE_URL or
    LUNGNODULE_DATA_DIR, running ones included.

    For example: `lungnodule models activate lungnodule 0.2.0`
    """
    with errors_in_one_line():
        from app.api.model_choice import Models, called, open_models
        from app.jobs.installation import open_activations
        from app.jobs.rows import Who

        quiet_libraries()
        settings = settings_with()
        found = open_models(settings)
        with open_activations(settings) as activations:
            models = Models(found.registry, found.named, activations)
            before = models.activate(found.registry.find(name, version), Who("command-line"))
        typer.echo(f"{name}:{version}  active; before it {called([before])[0]}")


def deactivate() -> None:
    """Let the first of LUNGNODULE_MODELS answer again where a request names none.

    For example: `lungnodule models deactivate`
    """
    with errors_in_one_line():
        from app.jobs.installation import open_activations
        from app.jobs.rows import Who

        with open_activations(settings_with()) as activations:
            before = activations.deactivate(Who("command-line"))
        typer.echo(f"LUNGNODULE_MODELS decides; before it {f'{before.name}:{before.version}' if before else 'too'}")


def _described(manifest: ModelManifest) -> str:
    made = manifest.provenance
    lines = [
        f"{manifest.name} {manifest.version}",
        f"  intended use   {manifest.intended_use}",
        f"  trained        {made.created} from {made.code[:12]}, config {made.config}",
        f"  data           {', '.join(made.data)} ({made.data_licence})",
        f"  spacing        {' x '.join(f'{mm:g}' for mm in manifest.preprocessing.voxel_zyx_mm[::-1])} mm (x, y, z)",
        f"  detector       {manifest.detector.kind}",
        f"  malignancy     {manifest.malignancy.meaning if manifest.malignancy else 'not judged'}",
        "  operating points",
    ]
    for name, point in manifest.operating_points.items():
        default = " (default)" if name == manifest.default_operating_point else ""
        lines.append(f"    {name}{default}: threshold {point.threshold:g}. {point.description}")
    for role, entry in manifest.networks.items():
        lines += _variants(role, entry)
    lines += ["  measured"] if manifest.metrics else []
    for metric in manifest.metrics:
        interval = f" [{metric.ci95[0]:.3f}, {metric.ci95[1]:.3f}]" if metric.ci95 else ""
        lines.append(f"    {metric.name} {metric.value:.3f}{interval}, n = {metric.n}, {metric.data}")
    lines += ["  published by others, not measured here"] if manifest.published else []
    lines += [f"    {told.name} {told.value:g}, {told.data}: {told.published_by}" for told in manifest.published]
    return "\n".join(lines)


def _variants(network: str, entry: NetworkFile) -> list[str]:
    """Each variant with its speed beside its accuracy."""
    lines = []
    for name, variant in entry.variants.items():
        seconds = "not timed" if variant.seconds_ratio is None else f"{variant.seconds_ratio:.2f} of fp32's seconds"
        figures = [f"{f.name} {f.value:.4f} (fp32 {f.fp32:.4f}, n = {f.n})" for f in variant.figures]
        lines.append(f"  {network} as {name}: {'; '.join([seconds, *figures])}")
    return lines
