--- Programs in a namespace whose loopback takes nothing until they open it; see spec/support/blocked_link.lua.

local namespace = require "spec.support.namespace"
local platform = require "spec.support.platform"
local support = require "spec.support"
local trace = require "spec.support.trace"
local assert = require "luassert"

local programs = {}

--- `it` where such namespaces can be made.
programs.it_blocked = platform.it_where(namespace.can_be_slow(), "tc, and namespaces")

--- For `it_blocked`: runs a program (source text) in a namespace of its own; fails unless it comes to its end.
function programs.passes(program)
  return support.on_main(function()
    local network <close> = assert(namespace.blocked())
    assert.equal("passed\n", trace.run_under(network:inside(), program .. "\nprint('passed')"))
  end, 60)
end

return programs
