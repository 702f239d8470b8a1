--- Runs specs without busted's C modules, for a version of Lua that they are not built for:
--- lua spec/support/plain_runner.lua FILE...
---
--- Knows what the specs of this project use: describe, it, pending, setup, teardown, before_each, after_each, finally
--- and luassert. Specs with #slow in a name are left out, and files that need LuaFileSystem. Exit code 0: none has
--- failed.

local assert = require "luassert"

local counts = { passed = 0, failed = 0, pending = 0 }
local block -- the describe that is being read, or run
local finalizer

local function new_block(name, parent)
  return { name = name, parent = parent, entries = {}, setup = {}, teardown = {}, before_each = {}, after_each = {} }
end

local words = {}

function words.describe(name, fn)
  local outer = block
  block = new_block(outer.name .. name .. " ", outer)
  table.insert(outer.entries, block)
  fn()
  block = outer
end

function words.it(name, fn)
  table.insert(block.entries, { name = block.name .. name, run = fn })
end

function words.pending(name)
  table.insert(block.entries, { name = block.name .. name })
end

for _, name in ipairs { "setup", "teardown", "before_each", "after_each" } do
  words[name] = function(fn) table.insert(block[name], fn) end
end
words.lazy_setup, words.lazy_teardown = words.setup, words.teardown

function words.finally(fn)
  finalizer = fn
end

local function complain(name, problem)
  counts.failed = counts.failed + 1
  print(("FAILED %s\n%s"):format(name, tostring(problem)))
end

-- Runs functions; returns the first error.
local function run_all(functions)
  local first
  for _, fn in ipairs(functions) do
    local ok, problem = xpcall(fn, function(err) return debug.traceback(tostring(err)) end)
    if not ok then first = first or problem end
  end
  return first
end

-- The functions of a block and of those around it: the outermost first.
local function around(at, name)
  local all = at.parent and around(at.parent, name) or {}
  return table.move(at[name], 1, #at[name], #all + 1, all)
end

local function run_spec(at, spec)
  if spec.run == nil then
    counts.pending = counts.pending + 1
    return
  end
  finalizer = nil
  local problem = run_all(around(at, "before_each")) or run_all { spec.run }
  local later = run_all { finalizer } or run_all(around(at, "after_each"))
  if problem or later then return complain(spec.name, problem or later) end
  counts.passed = counts.passed + 1
end

local function run_block(at)
  local problem = run_all(at.setup)
  if problem then complain(at.name .. "(setup)", problem) end
  for _, entry in ipairs(problem and {} or at.entries) do
    if not entry.name:find("#slow", 1, true) then
      if entry.entries then run_block(entry) else run_spec(at, entry) end
    end
  end
  problem = run_all(at.teardown)
  if problem then complain(at.name .. "(teardown)", problem) end
end

for name, word in pairs(words) do _G[name] = word end
_G.assert = assert
package.loaded.busted = words

for _, path in ipairs(arg) do
  block = new_block(path .. " ")
  local problem = run_all { function() assert(loadfile(path))() end }
  if problem == nil then
    run_block(block)
  elseif problem:find("module 'lfs' not found", 1, true) then
    counts.pending = counts.pending + 1
  else
    complain(path, problem)
  end
end
print(("%d passed, %d failed, %d pending"):format(counts.passed, counts.failed, counts.pending))
os.exit(counts.failed == 0, true)
