"""The import-linter contract "only": which modules a part of the code may import, directly.

import-linter's own contracts forbid; a pure core is easier to state, and safer, as the list of what it
may use. Called by `lint-imports` alone, through `contract_types` in the root pyproject.toml.
"""

from __future__ import annotations

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


def _under(module: str, roots: set[str]) -> bool:
    return any(module == root or module.startswith(root + ".") for root in roots)


class OnlyContract(Contract):
    """Modules import only what `may_import` names, and nothing that `must_not_import` names.

    Every name stands for itself and what lies below it. `within` limits `may_import` to imports of
    those packages; `except_modules` are not looked at; `may_be_absent` permits a part not yet written.
    """

    modules = fields.SetField(subfield=fields.StringField())
    except_modules = fields.SetField(subfield=fields.StringField(), required=False)
    may_import = fields.SetField(subfield=fields.StringField(), required=False)
    must_not_import = fields.SetField(subfield=fields.StringField(), required=False)
    within = fields.SetField(subfield=fields.StringField(), required=False)
    may_be_absent = fields.BooleanField(required=False, default=False)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: FBT001 - its signature
        """Collect every import that breaks the contract; `verbose` changes nothing here."""
        del verbose
        roots = set(self.modules)
        skipped = set(self.except_modules or ())
        allowed = None if self.may_import is None else set(self.may_import)
        banned = set(self.must_not_import or ())
        within = set(self.within or ())
        judged = sorted(m for m in graph.modules if _under(m, roots) and not _under(m, skipped))
        # A contract over a folder that was renamed away would be kept for ever: that is an error.
        absent = [] if judged or self.may_be_absent else sorted(roots)
        broken = []
        for importer in judged:
            for imported in sorted(graph.find_modules_directly_imported_by(importer)):
                unlisted = allowed is not None and not _under(imported, allowed)
                if within and not _under(imported, within):
                    unlisted = False
                if unlisted or _under(imported, banned):
                    lines = [
                        detail["line_number"]
                        for detail in graph.get_import_details(importer=importer, imported=imported)
                    ]
                    broken.append((importer, imported, lines))
        return ContractCheck(
            kept=not broken and not absent, metadata={"broken": broken, "absent": absent}
        )

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Name each import, with its lines."""
        for importer, imported, lines in check.metadata["broken"]:
            where = ", ".join(f"l.{line}" for line in lines)
            output.print_error(f"{importer} is not allowed to import {imported} ({where})")
        for root in check.metadata["absent"]:
            output.print_error(f"{root}: no such module; the contract checks nothing")
