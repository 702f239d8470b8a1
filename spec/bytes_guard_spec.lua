-- Runs the program built from spec/host/bytes_guard.c, which dies of any read outside the bytes it was given.

describe("the search functions", function()
  it("read no byte outside the memory they were given", function()
    local program = os.getenv("LUA_IP_BYTES_GUARD")
    if not program or program == "" then
      pending("LUA_IP_BYTES_GUARD does not name the program built from spec/host/bytes_guard.c")
      return
    end
    local output = assert(io.popen("'" .. program:gsub("'", "'\\''") .. "' 2>&1"))
    local text = output:read("a")
    local ok, how, code = output:close()
    assert.is_true(ok, ("%s %s: %s"):format(how, code, text))
    assert.truthy(text:find("^%d+ searches"), text)
  end)
end)
