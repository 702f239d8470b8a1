--- The C programs of spec/host, which CMake builds where IP_HOST_PROGRAMS is on.

local platform = require "spec.support.platform"

local hosts = {}

--- The directory of the build, or nil where nobody has told.
hosts.build = os.getenv("LUA_IP_BUILD")

--- The path of a host program, or nil where it was not built.
function hosts.path(name)
  local path = hosts.build and hosts.build .. "/" .. name
  local file <close> = path and io.open(path)
  return file and path or nil
end

--- `it` for specs that run a host program.
function hosts.it(name)
  return platform.it_where(hosts.path(name), "a build with IP_HOST_PROGRAMS=ON")
end

return hosts
