"""Vocabularies of Annif: TSV (`<URI>`, label, notation) and CSV (`uri`, `label_LANGUAGE` …, `notation`)."""

from __future__ import annotations

from hangtag.recognition import header_cells
from hangtag.taxonomies.concepts import Concept, Taxonomy
from hangtag.taxonomies.languages import LanguageChoice, with_notation
from hangtag.taxonomies.levels import table_rows


def read_annif_tsv(text: str) -> Taxonomy:
    """Return the subjects of a file of one language."""
    taxonomy = Taxonomy()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        uri = cells[0]
        if not (uri.startswith("<") and uri.endswith(">")) or len(cells) < 2:
            taxonomy.pass_over("lines without <URI>, tab, label", f"line {number}")
            continue
        description = with_notation(cells[2] if len(cells) > 2 else "", "")
        taxonomy.add(Concept(uri, cells[1], id=uri[1:-1], description=description, where=f"line {number}"))
    return taxonomy


def read_annif_csv(text: str, choice: LanguageChoice, source: str) -> Taxonomy:
    """Return the subjects; their names are those of the chosen language. Raises VocabularyError: it is no CSV."""
    taxonomy = Taxonomy()
    header, delimiter = header_cells(text.split("\n", 1)[0])
    for number, cells in table_rows(text, delimiter, source)[1:]:
        row = dict(zip(header, cells, strict=False))
        where = f"line {number}"
        uri = row.get("uri", "").strip().removeprefix("<").removesuffix(">")
        labels = {
            name.removeprefix("label_"): cell.strip()
            for name, cell in row.items()
            if name.startswith("label_") and cell.strip()
        }
        if not uri or not labels:
            taxonomy.pass_over("rows without an address or a label", where)
            continue
        label = choice.of({language: [label] for language, label in labels.items()})[0]
        description = with_notation(row.get("notation", ""), "")
        taxonomy.add(Concept(uri, label, id=uri, description=description, labels=labels, where=where))
    return taxonomy
