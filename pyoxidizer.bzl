# PyOxidizer's part of the executable: the standard library, our packages and their pure-Python dependencies, as source and
# bytecode in one file, plus libpython with its table of built-in modules. `embed/` links them with the Rust core.
# Run by scripts/resources.py, which names the Python distribution (scripts/distribution) and the folder of packages.

def make_exe():
    dist = PythonDistribution(
        sha256 = VARS["DISTRIBUTION_SHA256"],
        local_path = VARS["DISTRIBUTION"],
        flavor = "standalone",
    )

    policy = dist.make_python_packaging_policy()
    policy.extension_module_filter = "all"
    policy.resources_location = "in-memory"
    policy.allow_files = False
    policy.bytecode_optimize_level_zero = True
    # Source is kept, so that a traceback shows its lines.
    policy.include_distribution_sources = True
    policy.include_distribution_resources = True
    policy.include_non_distribution_sources = True
    policy.include_test = False

    exe = dist.to_python_executable(
        name = "strata",
        packaging_policy = policy,
        config = dist.make_python_interpreter_config(),
    )
    exe.add_python_resources(exe.read_package_root(path = VARS["PACKAGES"], packages = VARS["PACKAGE_NAMES"].split(",")))
    return exe

def make_resources(exe):
    return exe.to_embedded_resources()

set_build_path(VARS["BUILD_PATH"])
register_target("exe", make_exe)
register_target("resources", make_resources, depends = ["exe"], default = True)
resolve_targets()
