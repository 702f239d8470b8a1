-- That the programs in the documentation run, in Lua and in C, and print what they show.
local support = require "spec.support"
local modules = require "spec.support.modules"
local pages = require "spec.support.pages"

local scan = pages.scan

-- --- programs ---

-- Runs source text in a process of its own for at most `seconds`; returns its output and its exit code, 124
-- when it was still running. What a sanitizer needs preloaded is for the interpreter, not for timeout(1).
local function run(source, seconds, interpreter_options)
  local path = support.write_file(source)
  local command = ('LD_PRELOAD= timeout %g env LD_PRELOAD="$LD_PRELOAD" %s %s %s 2>&1 </dev/null')
    :format(seconds, support.interpreter, interpreter_options or "", path)
  local output, code = support.read_command(command)
  os.remove(path)
  return (output:gsub((path:gsub("%p", "%%%0")), "server.lua")), code
end

-- The words of a text, each between blanks, without the commas of a list.
local function in_words(text)
  return (" " .. text .. " "):gsub(",%f[%s]", ""):gsub("%s+", " ")
end

-- Fails unless the output has what the comments `--> TEXT` of a program say, in their order. A number of five
-- digits is a port, which the system chooses; … stands for any text.
local function assert_shown(where, source, output)
  local words, done = in_words(output), 1
  for shown in source:gmatch("%-%-> *([^\n]*)") do
    if not shown:find("^for example ") then
      local pattern = in_words(shown):gsub("%p", "%%%0"):gsub("%f[%d]%d%d%d%d%d%f[%D]", "%%d+"):gsub("…", ".-")
      local _, last = words:find(pattern, done)
      assert(last, ("%s shows '%s', but prints %s"):format(where, shown, output))
      done = last                                         -- the blank, with which the next one begins
    end
  end
end

local function run_block(where, marker, source)
  local kind, rest = (marker or ""):match("^([%a ]*):? ?(.*)$")
  assert(marker == nil or kind == "endless" or kind == "needs" or kind == "options" or kind == "not run",
    where .. ": unknown marker")
  if kind == "not run" then
    assert(rest ~= "", where .. ": not run for what reason?")
    assert(load(source, "=" .. where))
    return
  end
  if kind == "needs" and not modules.exists(rest) then return pending(rest .. " is not installed") end
  source = source:gsub('("127%.0%.0%.1"), %d%d%d%d?%)', "%1, 0)")               -- no fixed ports here
  local endless = kind == "endless"
  local output, code = run(source, endless and 1 or 10 * support.patience, kind == "options" and rest or "")
  assert.are.equal(endless and 124 or 0, code, where .. ": " .. output)
  if not endless then assert_shown(where, source, output) end
end

describe("The programs", function()
  for _, page in ipairs(pages.guides) do
    scan(page, nil, function(language, marker, source, number)
      if language ~= "lua" then return end
      local where = page .. ":" .. number
      it("in the documentation run: " .. where, function() run_block(where, marker, source) end)
    end)
  end
end)

-- --- C ---

describe("The functions of lua_ip.h", function()
  it("are documented as they are declared", function()
    local header = pages.read("include/lua_ip.h"):gsub("/%*.-%*/", "")
    local text = pages.read("docs/other_loops.md")
    local count = 0
    for declaration in header:gmatch("(int lua_ip_[%w_]+%b());") do
      count = count + 1
      assert(text:find("### `" .. declaration .. "`", 1, true), declaration .. " has no heading")
    end
    assert.are.equal(1, count)
  end)

  it("are used in a program that a compiler accepts", function()
    local look = "export LD_PRELOAD=; command -v cc >/dev/null && pkg-config --cflags libuv lua5.4 2>/dev/null"
    local pipe = io.popen(look)
    local flags = pipe:read("l")
    if not pipe:close() then return pending("no compiler, or no headers") end
    local compiled = 0
    scan("docs/other_loops.md", nil, function(language, _, source)
      if language ~= "c" then return end
      compiled = compiled + 1
      local path = support.write_file(source .. "\n")
      local command = "LD_PRELOAD= cc -x c -std=gnu11 -Wall -Wextra -Wshadow -Werror -fsyntax-only -Iinclude %s %s 2>&1"
      local output, code = support.read_command(command:format(flags, path))
      os.remove(path)
      assert.equal(0, code, output)
    end)
    assert.are.equal(1, compiled)
  end)
end)
