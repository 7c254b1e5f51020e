"""docs/openapi.yaml is valid: as an OpenAPI 3.1 document, and each of its examples by its schema."""

import pathlib
import unittest

import openapi_schema_validator
import openapi_spec_validator
import yaml

FILE = pathlib.Path(__file__).parents[2] / "docs" / "openapi.yaml"


class Document(unittest.TestCase):
    def setUp(self):
        self.document = yaml.safe_load(FILE.read_text(encoding="utf-8"))

    def test_it_is_valid(self):
        openapi_spec_validator.validate(self.document)

    def test_examples_are_as_their_schemas_say(self):
        checked = 0
        for operation in self.operations():
            for content in self.contents(operation):
                examples = [example["value"] for example in content.get("examples", {}).values()]
                for example in examples + [content[key] for key in ("example",) if key in content]:
                    openapi_schema_validator.validate(example, self.resolved(content["schema"]))
                    checked += 1
        self.assertGreater(checked, 15)

    def test_operations_have_ids_of_their_own(self):
        ids = [operation["operationId"] for operation in self.operations()]
        self.assertEqual(len(ids), len(set(ids)))

    def operations(self):
        for path in self.document["paths"].values():
            for method in ("get", "post", "delete"):
                if method in path:
                    yield self.resolved(path[method])

    @staticmethod
    def contents(operation):
        answers = [answer.get("content") for answer in operation["responses"].values()]
        for content in [operation.get("requestBody", {}).get("content"), *answers]:
            if content:
                yield content["application/json"]

    def resolved(self, value):
        """With references replaced by what they name."""
        if isinstance(value, list):
            return [self.resolved(item) for item in value]
        if not isinstance(value, dict):
            return value
        fields = {key: self.resolved(field) for key, field in value.items() if key != "$ref"}
        if "$ref" not in value:
            return fields
        named = self.document
        for part in value["$ref"].removeprefix("#/").split("/"):
            named = named[part]
        return self.resolved(named) | fields


if __name__ == "__main__":
    unittest.main()
