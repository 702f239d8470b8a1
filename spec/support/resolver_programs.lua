--- Programs that look up names, as specs write them.

local network = require "spec.support.network"
local platform = require "spec.support.platform"
local support = require "spec.support"
local assert = require "luassert"

local programs = {}

--- What such programs begin with.
programs.PRELUDE = [[
local ip = require "ip"
local look_ups = require "spec.support.look_ups"
local name_server = require "spec.support.name_server"
local fiber, udp, flag = ip.fiber, ip.udp, ip.address_info_flag
local show, fail, pending = look_ups.show, look_ups.fail, look_ups.pending
]]

--- The same, beside a name server that never answers for slow.test and 192.0.2.1.
programs.SILENT = programs.PRELUDE .. [[
local asked, server = look_ups.start_silent_server()
local function wait_until_asked(name) look_ups.wait_until_asked(asked, name) end
]]

--- `it` where programs may have mount and network namespaces of their own.
programs.it_network = platform.it_where(network.is_permitted(), "mount and network namespaces")

--- For `programs.it_network`: runs a program in namespaces of its own, after these files and shell commands (see
--- network.start). Its output must be what is expected, and its exit code 0.
function programs.prints(expected, program, files, commands)
  return support.on_main(function()
    local output, code = network.run(program, files, commands)
    assert.equal(expected, output)
    assert.equal(0, code)
  end, 100)
end

return programs
