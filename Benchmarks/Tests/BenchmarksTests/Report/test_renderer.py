# SPDX-License-Identifier: Apache-2.0
"""The arithmetic and the words of the report. Run by ReportPageTests; by hand: PYTHONPATH=RENDERER python3 FILE."""

import unittest

from plots import spread_apart
from results import Entry, Scenario, Spread, ratios, spreads
from style import colours, number, ordered, readable_unit, short, tick, words


def entry(contender: str, round: int, rate: float) -> Entry:
    return Entry(contender, (0, round), {}, {"rate": rate}, None)


class Renderer(unittest.TestCase):
    def test_median_and_range(self) -> None:
        self.assertEqual(Spread.of([3, 1, 2]), Spread(2, 1, 3))
        self.assertIsNone(Spread.of([]))
        self.assertEqual(spreads([entry("a", 1, 4), entry("a", 2, 6)], "rate"), {"a": Spread(5, 4, 6)})

    def test_ratios_stay_within_their_round(self) -> None:
        """The second round's machine was twice as fast; a third has no floor and counts for nothing."""
        found = [entry("ours", 1, 90), entry("floor", 1, 100), entry("ours", 2, 180), entry("floor", 2, 200)]
        found.append(entry("ours", 3, 1))
        self.assertEqual(ratios(found, "rate", {"ours": "floor"}), {"ours": Spread(0.9, 0.9, 0.9)})

    def test_labels_are_moved_apart_and_stay_in_order(self) -> None:
        places = spread_apart([0.1, 0.5, 0.51, 0.52, 0.99], 0.1)
        self.assertEqual(places, sorted(places))
        self.assertTrue(all(high - low >= 0.0999 for low, high in zip(places, places[1:])))
        self.assertAlmostEqual(places[0], 0.1)

    def test_numbers_and_words(self) -> None:
        self.assertEqual([number(v) for v in (0, 1234.5, 12.34, 1.234)], ["0", "1,234", "12.3", "1.23"])
        self.assertEqual([number(v) for v in (0.0401, 0.996)], ["0.040", "0.996"])
        self.assertEqual(number(0.00003), "<0.001")
        self.assertEqual([short(v) for v in (171_234, 5_088_042, 0.04, 2)], ["171k", "5.1M", "0.04", "2"])
        self.assertEqual([tick(v) for v in (0, 0.5, 2500, 100_000)], ["0", "0.5", "2.5k", "100k"])
        self.assertEqual(words("userBytesPerConnection"), "user bytes per connection")
        self.assertEqual(readable_unit("nanosecondsP99", [Spread(2e4, 1e4, 3e4)]), ("µs p99", 1e-3))

    def test_scenarios_have_a_title(self) -> None:
        shape = Scenario.read({"connections": 1000, "messageBytes": 16384, "depth": 32})
        self.assertEqual(shape.title, "1,000 × 16 KiB, depth 32")

    def test_ours_come_first_and_strangers_last(self) -> None:
        self.assertEqual(ordered(["stranger", "go", "floor libev", "proactor async"])[0], "proactor async")
        self.assertEqual(ordered(["stranger", "go"])[-1], "stranger")

    def test_each_colour_has_one_role(self) -> None:
        """Colours are found again in SVG by their value."""
        values = [colour.light for colour in colours()]
        self.assertEqual(len(values), len(set(values)))


if __name__ == "__main__":
    unittest.main()
