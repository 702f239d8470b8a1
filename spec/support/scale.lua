--- Programs of specs with very many fibers, sockets or peers.

local platform = require "spec.support.platform"
local support = require "spec.support"
local assert = require "luassert"

local scale = {}

--- Runs one of spec/programs with `count` as its argument; returns the numbers that it prints, by name.
---@param before string? a shell command that comes first
function scale.run(program, count, before)
  local output, code = support.run_file(support.program(program), tostring(count), before)
  assert.equal(0, code, output)
  local values = {}
  for name, value in output:gmatch("(%w+)=(%-?%d+)\n") do values[name] = tonumber(value) end
  assert.is_not_nil(next(values), output)
  return values
end

--- Fails where more than `most` bytes were needed. A tool that watches a program has memory of its own.
function scale.assert_bytes(most, bytes, what)
  if bytes == nil or platform.is_watched then return end
  assert.is_true(bytes <= most, ("%s: %d bytes, at most %d are allowed"):format(what, bytes, most))
end

return scale
