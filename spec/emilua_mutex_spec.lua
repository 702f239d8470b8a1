-- What ip.emilua's modules mutex and condition_variable promise to scripts that were written for Emilua.
local process = require "spec.support.process"
local support = require "spec.support"

local function program(name, expected, source)
  it(name, support.with_loop(function()
    local path = support.write_file(source)
    local output, errors, code = process.run(process.lua("-l", "ip.emilua", path))
    os.remove(path)
    assert.equal("", errors)
    assert.equal(expected, output)
    assert.equal(0, code)
  end, 30))
end

describe("mutex", function()
  after_each(process.stop_all)

  program("lets one fiber in at a time, in the order in which they came", "1+ 1- 2+ 2- 3+ 3- \n", [[
    local mutex = require 'mutex'
    local m, log = mutex.new(), {}
    local fibers = {}
    for i = 1, 3 do
      fibers[i] = spawn(function()
        m:lock()
        log[#log + 1] = i .. '+ '
        sleep(0.001)
        log[#log + 1] = i .. '- '
        m:unlock()
      end)
    end
    for _, f in ipairs(fibers) do f:join() end
    print(table.concat(log))
  ]])

  program("has try_lock, and raises EPERM for an unlock too many", "true\tfalse\ttrue\nfalse\tEPERM\tgeneric\n", [[
    local m = require('mutex').new()
    local first, second = m:try_lock(), m:try_lock()
    m:unlock()
    print(first, second, m:try_lock())
    m:unlock()
    local ok, err = pcall(m.unlock, m)
    print(ok, err.name, err.category)
  ]])

  program("lock is no interruption point", "locked\tfalse\tINTERRUPTED\n", [[
    local m = require('mutex').new()
    m:lock()
    local f = spawn(function()
      m:lock()
      local ok, err = pcall(this_fiber.yield)
      print('locked', ok, err.name)
      m:unlock()
    end)
    this_fiber.yield()
    f:interrupt()
    this_fiber.yield()
    m:unlock()
    f:join()
  ]])

  program("is no global, has no other names, and accepts mutexes only", "nil\tmutex\nfalse\tfalse\tfalse\tfalse\n", [[
    local mutex = require 'mutex'
    local m = mutex.new()
    print(rawget(_G, 'mutex'), getmetatable(m))
    print(pcall(function() return m.locked end) and true, pcall(function() m.x = 1 end) and true,
      (pcall(m.lock, {})), (pcall(m.unlock, nil)))
  ]])
end)

describe("condition_variable", function()
  after_each(process.stop_all)

  program("waits without the mutex, and has it again afterwards", "waits\nhas it\tfalse\nover\n", [[
    local m, c = require('mutex').new(), require('condition_variable').new()
    local ready = false
    local f = spawn(function()
      m:lock()
      print('waits')
      while not ready do c:wait(m) end
      print('has it', m:try_lock())
      m:unlock()
    end)
    this_fiber.yield()
    m:lock()
    ready = true
    c:notify_one()
    m:unlock()
    f:join()
    m:lock()
    print('over')
  ]])

  program("wakes one or all", "1\n3\n", [[
    local m, c = require('mutex').new(), require('condition_variable').new()
    local woken, fibers = 0, {}
    for i = 1, 3 do
      fibers[i] = spawn(function()
        m:lock()
        c:wait(m)
        woken = woken + 1
        m:unlock()
      end)
    end
    sleep(0.001)
    c:notify_one()
    sleep(0.001)
    print(woken)
    c:notify_all()
    for _, f in ipairs(fibers) do f:join() end
    print(woken)
  ]])

  program("takes the mutex again before it raises an interruption", "held\nfalse\tINTERRUPTED\tfalse\ntrue\n", [[
    local m, c = require('mutex').new(), require('condition_variable').new()
    local f = spawn(function()
      m:lock()
      local ok, err = pcall(c.wait, c, m)
      print(ok, err.name, m:try_lock())
      m:unlock()
    end)
    this_fiber.yield()
    m:lock()
    f:interrupt()
    sleep(0.002)
    print('held')
    m:unlock()
    f:join()
    print(f.interruption_caught == false)
  ]])

  for _, held in ipairs { false, true } do
    program("takes the mutex again before it raises a deadline" .. (held and ", also from who holds it" or ""),
      "false\tETIMEDOUT\tfalse\ttrue\nfalse\tETIMEDOUT\ntrue\n", ([[
      local with_timeout = require('ip.fiber').with_timeout
      local m, c = require('mutex').new(), require('condition_variable').new()
      local held, free = %s, true
      local f = spawn(function()
        local ok, err = pcall(with_timeout, 0.01, function()
          m:lock()
          local ok, err = pcall(c.wait, c, m)
          print(ok, err.name, m:try_lock(), free)
          m:unlock()
        end)
        print(ok, err.name)
      end)
      this_fiber.yield()
      if held then
        m:lock()
        free = false
        sleep(0.03)
        free = true
        m:unlock()
      end
      f:join()
      print(m:try_lock())
    ]]):format(held))
  end

  program("raises EPERM where the mutex is not locked, and leaves it so", "false\tEPERM\ttrue\n", [[
    local m, c = require('mutex').new(), require('condition_variable').new()
    local ok, err = pcall(c.wait, c, m)
    print(ok, err.name, m:try_lock())
  ]])

  program("refuses where it cannot wait, with the mutex still locked", "false\ttrue\tfalse\n", [[
    local m, c = require('mutex').new(), require('condition_variable').new()
    spawn(function()
      m:lock()
      local ok, err = pcall(table.sort, { 2, 1 }, function() c:wait(m) end)
      print(ok, err:find('cannot wait in wait', 1, true) ~= nil, m:try_lock())
    end):join()
  ]])

  program("accepts condition variables and mutexes only", "nil\tcondition_variable\nfalse\tfalse\tfalse\n", [[
    local c = require('condition_variable').new()
    print(rawget(_G, 'condition_variable'), getmetatable(c))
    print((pcall(c.wait, c, {})), (pcall(c.notify_one, {})), pcall(function() return c.x end) and true)
  ]])

  program("and the others name the program's line and the wrong value", [[
calling 'lock' on bad self (mutex expected, got number 1)
calling 'unlock' on bad self (mutex expected, got no value)
calling 'wait' on bad self (condition_variable expected, got mutex)
bad argument #1 to 'wait' (mutex expected, got number 3)
calling 'join' on bad self (fiber expected, got string 'x')
bad argument #1 to 'spawn' (function expected, got number 5)
acquire: resource deadlock avoided (EDEADLK)
]], [[
    local m, c = require('mutex').new(), require('condition_variable').new()
    local function try(...)
      local ok, err = pcall(...)
      local text, count = tostring(err):gsub('^' .. arg[0] .. ':3: ', '')
      print(ok == false and count == 1 and text or tostring(err))
    end
    try(m.lock, 1)
    try(m.unlock)
    try(c.wait, m)
    try(c.wait, c, 3)
    try(spawn(function() end).join, 'x')
    try(spawn, 5)
    m:lock()
    try(m.lock, m)
  ]])
end)
