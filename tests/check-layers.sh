#!/bin/sh
# The law of the house (docs/ARCHITECTURE.md): an include may only point down the floors, never to
# another folder of the same floor; what stands on floor 4 is included by nobody but
# src/backends.c, and not by tests/device either, which any device has to pass; MPI, oneDNN, OpenMP,
# printing and exiting each have their one place.
# check-layers.sh [ROOT] prints each breach and exits 1 if there is one.
set -u
cd "${1-${srcdir-.}}" || exit 99

find src include examples tests/device -name '*.[ch]' -exec awk '
BEGIN {
    split("base 0 tensor 1 reference 2 device 3 comm 3 cpu 4 mpi 4 plan 5 attention 6 " \
          "judge 6 store 6 layer 7 model 8 train 9 infer 9 cli 10", list, " ")
    for (i = 1; i in list; i += 2) floor[list[i]] = list[i + 1]
    floor["backends.c"] = 4.5 # joins the tables of floor 4 to the fronts of floor 3
}
function breach(what) {
    print FILENAME ":" FNR ": " what
    bad = 1
}
# Inside src/attention: nothing but methods/ names methods/; the two rooms below do not know each
# other; and a header that stands in none names none, but a source may.
function room(path) {
    return match(path, /(merging|travelling|methods)\//) ? substr(path, RSTART, RLENGTH - 1) : ""
}
function check_room(header) {
    if (room(header) == "" || room(header) == room(FILENAME) || room(FILENAME) == "methods") return
    if (room(FILENAME) != "" || FILENAME ~ /\.h$/)
        breach("includes " header ", of a room above or beside")
}
# What the options and tensors of a caller mean is found out once, for plans and for judges.
function judge_reads(header) {
    return header ~ /^attention\/(agreement|operands|options|problem)\.h$/
}
FNR == 1 {
    split(FILENAME, part, "/")
    home = part[1] == "src" ? part[2] : part[1] # the floor of this file, or "include", "examples", "tests"
    if (part[1] == "src" && !(home in floor)) breach("no floor is known for " FILENAME)
}
/^[ \t]*#[ \t]*include/ {
    header = $0
    sub(/^[^"<]*["<]/, "", header)
    sub(/[">].*$/, "", header)
    folder = header
    sub(/\/.*$/, "", folder)

    if (header ~ /(^|\/)mpi\.h$/ && header !~ /^mpi\//) {
        if (home == "cli") {
            if (start_up != "" && start_up != FILENAME)
                breach("MPI is started in " start_up " already")
            start_up = FILENAME
        } else if (home != "mpi" && FILENAME != "include/longspan/mpi.h" && home != "examples")
            breach("MPI is named by src/mpi and the start-up of src/cli only")
    }
    if (header ~ /^(oneapi\/dnnl\/)?dnnl[a-z_]*\.h/) {
        if (home != "cpu") breach("oneDNN is named by src/cpu only")
        if (onednn != "" && onednn != FILENAME) breach("oneDNN is named by " onednn " already")
        onednn = FILENAME
    }
    if ($0 !~ /"/ || header == "config.h" || folder == "longspan") next
    if (home == "tests") {
        if (folder in floor && floor[folder] == 4)
            breach("includes " header ": tests/device knows a device by its table")
    } else if (home == "include" || home == "examples")
        breach("includes " header ", which is not public")
    else if (!(folder in floor))
        breach("includes " header ", whose floor is not known")
    else if (folder == home && home == "attention")
        check_room(header)
    else if (folder == home || (home == "judge" && judge_reads(header)))
        next
    else if (floor[folder] == 4 && home != "backends.c")
        breach("includes " header ": src/backends.c alone names the backends")
    else if (floor[folder] >= floor[home])
        breach("includes " header ": floor " floor[home] " may not include floor " floor[folder])
}
/^[ \t]*#[ \t]*pragma[ \t]+omp/ && home != "cpu" { breach("OpenMP is used in src/cpu only") }
# Tensors are copied and cleared by the device. These files do so with options and documents, a line of
# text, and lists of which leaves are seen.
/(^|[^A-Za-z0-9_])mem(cpy|set|move)\(/ && home == "attention" &&
    FILENAME !~ /\/(execution|fingerprint|lists|options|reach|part_gradients_size)\.c$/ {
    breach("src/attention leaves elements to the device")
}
# What a device computes with is its own business; the command may print it.
/(^|[^A-Za-z0-9_])(ls_isa|ls_cpu_isa|LS_ISA_|omp_)/ && floor[home] > 4 && home != "cli" {
    breach("instruction sets and threads of OpenMP are for devices to know")
}
/(^|[^A-Za-z0-9_])(exit|printf|puts|perror)\(|fprintf\(std/ && home != "cli" && home != "examples" {
    breach("only src/cli prints or exits")
}
END { exit bad }' {} +
