"""The model card of an exported model: what it reads, how it was trained, how it scored."""

from typing import Any

from huggingface_hub import EvalResult, ModelCardData

TAGS = ["clue", "user-representation", "recommender-systems"]


def model_card(record: dict[str, Any], fingerprint: str, *, license: str, name: str) -> str:
    """Return the README.md of the model that `record`, its config.json, describes."""
    config, corpus = record["config"], record["corpus"]
    metrics: dict[str, dict[str, float]] = record["metrics"]
    results = [
        EvalResult(
            task_type="feature-extraction",
            task_name=config["objective"],
            dataset_type=corpus["name"],
            dataset_name=f"{corpus['name']}, held-out: {part}",
            dataset_config=part,
            metric_type=measure,
            metric_value=value,
        )
        for part, measures in metrics.items()
        for measure, value in measures.items()
    ]
    data = ModelCardData(
        library_name="clue",
        license=license,
        tags=[*TAGS, config["objective"].replace("_", "-")],
        model_name=config["name"],
        eval_results=results or None,
    )
    reads = "item ids" if config["objective"] == "next_item" else "texts"
    events = ", ".join(f"{count:,} of {service}" for service, count in corpus["num_events"].items())
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {config['name']}",
        "A user encoder of CLUE (`pip install clue-users`): what a user did in one or more "
        f"services, given as {reads}, becomes one vector of length one. The cosine of two says how "
        "alike they are.",
        "## Use\n\n```python\nimport clue\n\n"
        f'encoder = clue.load("{name}")\n'
        f"vectors = encoder.encode({_example(record)})\n```",
        "## Training\n\n"
        f"- objective: {config['objective']}, {record['step']:,} steps of {config['batch']:,}\n"
        f"- corpus `{corpus['name']}`: {corpus['num_users']:,} users, {corpus['num_items']:,} "
        f"items; events: {events}\n"
        f"- fingerprint: `{fingerprint}`",
        _table(metrics),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _example(record: dict[str, Any]) -> str:
    what = "an item's id" if record["config"]["objective"] == "next_item" else "an item's text"
    return f'[{{"{record["corpus"]["services"][0]}": ["{what}", "the next one"]}}]'


def _table(metrics: dict[str, dict[str, float]]) -> str:
    """Return the held-out figures as Markdown, a row a measure; nothing where none was measured."""
    if not metrics:
        return ""
    measures = list(dict.fromkeys(name for column in metrics.values() for name in column))
    lines = ["| measure | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for measure in measures:
        cells = [
            f"{column[measure]:.4g}" if measure in column else "" for column in metrics.values()
        ]
        lines.append(f"| {measure} | " + " | ".join(cells) + " |")
    return (
        "## Held-out figures\n\nOf the run's own log, at this step: users or events that training "
        "never saw.\n\n" + "\n".join(lines)
    )
