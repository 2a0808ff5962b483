# SPDX-License-Identifier: Apache-2.0
"""mutants.py: makes small changes in a C file of the core, one at a time, and says which of them no case notices.

.ci/mutants.sh builds what does not change, and starts this. Where a change can be made is read from clang's syntax
tree. A mutant whose code comes out as the original's is equivalent. The others play the cases that the core as it is
passes; a failure has to come twice, and not with the core as it is, since cases on the real kernel may have bad days.
"""
import json, os, queue, shutil, signal, subprocess, sys, threading, time

FLAGS = os.environ["FLAGS"].split()
INCLUDES = os.environ["INCLUDES"].split()
LIBRARIES = os.environ["LIBRARIES"].split()
SOURCES = os.environ["CORE"]
WORK = os.environ["WORK"]
JOBS = int(os.environ.get("MUTANTS_JOBS", "2"))
EVERY = int(os.environ.get("MUTANTS_EVERY", "1"))
CASE_MS = int(os.environ.get("MUTANTS_CASE_MS", "100"))
PAUSE_FILE = os.environ.get("MUTANTS_PAUSE_FILE", "")
RESULTS = os.environ.get("MUTANTS_RESULTS", "")
RUN_SECONDS = 180

# ---- where changes can be made ----

# Turning a condition round is left out: what notices that notices one of "always" and "never" too, all but always.
SWAPS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
STATEMENTS = ("CallExpr", "BinaryOperator", "CompoundAssignOperator", "UnaryOperator", "BreakStmt", "ContinueStmt")
BODIES = {"IfStmt": 1, "ForStmt": 4, "WhileStmt": 1, "CaseStmt": 1, "DefaultStmt": 0}


def offset_of(location, end, text):
    """Where a place of the syntax tree is in the text. A macro counts as what is written there; None: in its body."""
    if "spellingLoc" in location:
        if "includedFrom" in location["expansionLoc"] or location["expansionLoc"].get("isMacroArgExpansion"):
            return None
        location = location["expansionLoc"]
    if "offset" not in location or "includedFrom" in location:
        return None
    start = location["offset"]
    if not end:
        return start
    stop = start + location.get("tokLen", 0)
    if "offset" in location and text[stop : stop + 1] == b"(" and text[start:stop].replace(b"_", b"a").isalnum():
        depth = 0
        for stop in range(stop, len(text)):
            depth += {ord("("): 1, ord(")"): -1}.get(text[stop], 0)
            if depth == 0:
                return stop + 1
    return stop


class Places:
    """Every change to a file: (from, to, text in its place, what it is)."""

    def __init__(self, path, text):
        self.text, self.found, self.seen = text, [], set()
        command = ["clang", *FLAGS, "-fno-sanitize=all", *INCLUDES, "-fsyntax-only", "-Xclang", "-ast-dump=json", path]
        tree = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        for node in tree["inner"]:
            location = node.get("loc", {})
            location = location.get("expansionLoc", location)
            if node["kind"] == "FunctionDecl" and "includedFrom" not in location:
                for child in node.get("inner", []):
                    if child["kind"] == "CompoundStmt":
                        self.walk(child, None)

    def span(self, node):
        begin = offset_of(node.get("range", {}).get("begin", {}), False, self.text)
        end = offset_of(node.get("range", {}).get("end", {}), True, self.text)
        return (begin, end) if begin is not None and end is not None and begin < end else None

    def add(self, span, new, what):
        if not span:
            return
        old = self.text[span[0] : span[1]]
        new += b"\n" * (old.count(b"\n") - new.count(b"\n"))  # lines keep their numbers
        key = (span[0], span[1], new)
        if key not in self.seen and old != new:
            self.seen.add(key)
            self.found.append((*key, what))

    def between(self, left, right, operator):
        """The operator between two operands."""
        if not left or not right or left[1] > right[0]:
            return None
        start = self.text.find(operator.encode(), left[1], right[0])
        return (start, start + len(operator)) if start >= 0 else None

    def statement(self, node):
        kind = node["kind"]
        if kind not in STATEMENTS and not (kind == "ReturnStmt" and not node.get("inner")):
            return
        if kind == "CallExpr" and "spellingLoc" in node["range"]["begin"]:
            return  # the inside of an assertion
        self.add(self.span(node), b"", "statement left out")

    def walk(self, node, parent):
        kind, inner = node.get("kind"), [child for child in node.get("inner", []) if child]
        if not kind:
            return
        if kind == "CompoundStmt":
            for child in inner:
                self.statement(child)
        elif kind in BODIES and len(inner) > 0:
            for child in inner[min(BODIES[kind], len(inner) - 1) :]:
                self.statement(child)
        if kind == "IfStmt":
            self.add(self.span(inner[0]), b"1", "always")
            self.add(self.span(inner[0]), b"0", "never")
        elif kind in ("WhileStmt", "ForStmt"):
            condition = self.span(inner[0]) if kind == "WhileStmt" else None
            self.add(condition, b"0", "never")
        elif kind == "ConditionalOperator":
            for chosen in inner[1:]:
                span = self.span(chosen)
                if span and self.span(node):
                    self.add(self.span(node), b"(" + self.text[span[0] : span[1]] + b")", "one side")
        elif kind == "BinaryOperator" and len(inner) == 2:
            self.binary(node, inner)
        elif kind == "CompoundAssignOperator" and node.get("opcode") in ("+=", "-="):
            other = {"+=": "-=", "-=": "+="}[node["opcode"]]
            place = self.between(self.span(inner[0]), self.span(inner[1]), node["opcode"])
            self.add(place, other.encode(), "the other sign")
        elif kind == "IntegerLiteral" and node.get("value") in ("0", "1"):
            self.add(self.span(node), b"1" if node["value"] == "0" else b"0", "0 and 1")
        for child in inner:
            self.walk(child, node)

    def binary(self, node, inner):
        operator, span = node["opcode"], self.span(node)
        left, right = self.span(inner[0]), self.span(inner[1])
        if operator in SWAPS:
            self.add(self.between(left, right, operator), SWAPS[operator].encode(), "comparison")
        elif operator in ("&&", "||", "|", "&") and left and right and span:
            self.add(span, b"(" + self.text[left[0] : left[1]] + b")", "right side left out")
            self.add(span, b"(" + self.text[right[0] : right[1]] + b")", "left side left out")
        elif operator in ("+", "-"):
            literal = self.text[right[0] : right[1]] in (b"1", b"1u") if right else False
            if literal and left:
                self.add((left[1], right[1]), b"", "one left out")
            else:
                place = self.between(left, right, operator)
                self.add(place, b"-" if operator == "+" else b"+", "the other sign")


# ---- one mutant ----


def play(player, cases):
    """Index of the first case that failed, or None, and what was said."""
    child = subprocess.Popen(
        [player], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    text = "".join(f"{case['key']} {case['ms']}\n" for case in cases).encode()
    try:
        output, _ = child.communicate(text, timeout=RUN_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        output, _ = child.communicate()
    try:
        os.killpg(child.pid, signal.SIGKILL)  # children that a failure left behind
    except ProcessLookupError:
        pass
    if child.returncode == 0:
        return None, ""
    lines = output.decode(errors="replace").splitlines()
    begun = [line.split("\t")[0] for line in lines if line.split("\t")[0] in {case["key"] for case in cases}]
    return len(begun) - 1 if begun else 0, "\n".join(lines[-60:])


def words(text):
    for line in text.splitlines():
        for mark in ("ERROR: ", "runtime error: ", "Assertion ", "broken invariant", "failed: ", "hang"):
            if mark in line:
                return line[line.index(mark) :][:140]
    return text.splitlines()[-1][:140] if text else "?"


class Runner:
    def __init__(self):
        self.cases = json.load(open(f"{WORK}/cases.json"))
        self.lock, self.rows, self.noticed = threading.Lock(), [], {}

    def cases_for(self, name):
        """Cases on the backend that the file belongs to: first those that have noticed most, then the quickest."""
        other = {"selector.c": "2", "proactor.c": "1"}.get(name, "")
        chosen = [case for case in self.cases if case["key"].split()[2] != other and case["ms"] <= CASE_MS]
        return sorted(chosen, key=lambda case: (-self.noticed.get(case["key"], 0), case["ms"]))

    def code(self, folder, name):
        """What the compiler makes of it, without the parts that only name places."""
        command = ["clang", *FLAGS, "-O2", "-DNDEBUG", "-fno-sanitize=all", *INCLUDES, "-c", name, "-o", "plain.o"]
        subprocess.run(command, cwd=folder, check=True, stderr=subprocess.DEVNULL)
        return open(f"{folder}/plain.o", "rb").read()

    def judge(self, folder, name, original):
        try:
            if self.code(folder, name) == original:
                return "equivalent", ""
            command = ["clang", *FLAGS, *INCLUDES, "-c", name, "-o", f"{folder}/mutant.o"]
            subprocess.run(command, cwd=folder, check=True, stderr=subprocess.DEVNULL)
        except subprocess.CalledProcessError:
            return "not C", ""
        objects = [path for path in OBJECTS if path != f"{WORK}/core/{name[:-2]}.o"]
        player = f"{folder}/player"
        linked = subprocess.run(
            ["clang", *FLAGS, f"{folder}/mutant.o", *objects, *LIBRARIES, "-o", player], stderr=subprocess.PIPE)
        if linked.returncode != 0:
            return "not C", ""
        cases = self.cases_for(name)
        while cases:
            failed, _ = play(player, cases)
            if failed is None:
                return "SURVIVED", ""
            again, said = play(player, cases[failed : failed + 1])
            if again is not None and play(f"{WORK}/player", cases[failed : failed + 1])[0] is None:
                self.noticed[cases[failed]["key"]] = self.noticed.get(cases[failed]["key"], 0) + 1
                return "killed", f"{cases[failed]['name']}: {words(said)}"
            cases = cases[failed + 1 :]
        return "SURVIVED", ""

    def work(self, todo, number):
        folder = f"{WORK}/mutant{number}"
        while True:
            try:
                name, text, original, place = todo.get_nowait()
            except queue.Empty:
                return
            while (PAUSE_FILE and os.path.exists(PAUSE_FILE)) or memory_is_short():
                time.sleep(1)
            shutil.rmtree(folder, ignore_errors=True)
            os.mkdir(folder)
            begin, end, new, what = place
            with open(f"{folder}/{name}", "wb") as file:
                file.write(text[:begin] + new + text[end:])
            started = time.time()
            verdict, why = self.judge(folder, name, original)
            self.report(name, text, place, verdict, why, time.time() - started)

    def report(self, name, text, place, verdict, why, seconds):
        begin, end, new, what = place
        line = text.count(b"\n", 0, begin) + 1
        first, last = text.rfind(b"\n", 0, begin) + 1, text.find(b"\n", end)
        before = text[first:last].decode()
        after = (text[first:begin] + new.rstrip(b"\n") + text[end:last]).decode()
        with self.lock:
            self.rows.append((name, verdict))
            if RESULTS:
                with open(RESULTS, "a") as file:
                    fields = (f"{name}:{line}", verdict, what, " ".join(before.split()), " ".join(after.split()), why)
                    file.write("\t".join((*fields, f"{seconds:.1f}")) + "\n")
            if verdict == "SURVIVED":
                print(f"{name}:{line}: survived ({what})\n  - {' '.join(before.split())}\n  + {' '.join(after.split())}")
                sys.stdout.flush()


def memory_is_short():
    """The kernel frees rings in its own time; many players in a row can be ahead of it."""
    values = {line.split(":")[0]: int(line.split()[1]) for line in open("/proc/meminfo")}
    return values["MemAvailable"] < values["MemTotal"] / 3


def main(arguments):
    global OBJECTS
    OBJECTS = sorted(f"{WORK}/{part}/{name}" for part in ("core", "tests") for name in os.listdir(f"{WORK}/{part}"))
    runner, todo = Runner(), queue.Queue()
    for argument in arguments:
        name, _, lines = argument.partition(":")
        first, _, last = lines.partition("-")
        path = f"{SOURCES}/src/{name}"
        text = open(path, "rb").read()
        folder = f"{WORK}/original"
        shutil.rmtree(folder, ignore_errors=True)
        os.mkdir(folder)
        shutil.copy(path, folder)
        original = runner.code(folder, name)
        for place in sorted(Places(path, text).found)[::EVERY]:
            line = text.count(b"\n", 0, place[0]) + 1
            if not lines or int(first) <= line <= int(last or first):
                todo.put((name, text, original, place))
    print(f"==> mutants: {todo.qsize()} to be tried")
    sys.stdout.flush()
    threads = [threading.Thread(target=runner.work, args=(todo, number)) for number in range(JOBS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in sorted({name for name, _ in runner.rows}):
        verdicts = [verdict for file, verdict in runner.rows if file == name and verdict != "not C"]
        counts = {kind: verdicts.count(kind) for kind in ("equivalent", "killed", "SURVIVED")}
        print(f"==> mutants: {name}: {len(verdicts)}, " + ", ".join(f"{n} {k.lower()}" for k, n in counts.items()))


if __name__ == "__main__":
    main(sys.argv[1:])
